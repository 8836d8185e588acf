"""The load under which a fault happens: attempts to issue, look-ups, «my coupons»."""

from __future__ import annotations

import multiprocessing
import multiprocessing.pool
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from loadtest.driver.generator import Arrival, Result, open_loop
from loadtest.driver.http_client import request_bytes
from loadtest.faults.fault import ISSUE, LOOK_UP, MINE, Fault, Stage

READS_PER_S = 40
# No promise is as long as this; who waits longer has no answer.
TIMEOUT_S = 5.0
# From the order to the first request: for the plan to reach the other process.
LEAD_S = 0.5
ASK_AGAIN_PER_S = 100
MAX_ASKED_AGAIN = 200
MAX_ASKED_TWICE = 50


def plan(stage: Stage, fault: Fault, seconds: float) -> list[Arrival]:
    """Every request of one run; each attempt by another user, each with a key of its own."""
    look_up = request_bytes("GET", f"/api/v1/coupons/{stage.coupon_id}", keep=not fault.look_ups_connect_anew)
    arrivals = []
    for number in range(int(fault.rate_per_s * seconds)):
        user = f"user-{number}"
        arrivals.append(Arrival(number / fault.rate_per_s, ISSUE, attempt(stage, user), user))
    for number in range(int(READS_PER_S * seconds)):
        at_s = number / READS_PER_S
        mine = request_bytes("GET", "/api/v1/me/coupons", stage.service.token(f"user-{number}"))
        arrivals += [Arrival(at_s, LOOK_UP, look_up), Arrival(at_s + 0.5 / READS_PER_S, MINE, mine)]
    return sorted(arrivals, key=lambda arrival: arrival.at_s)


def attempt(stage: Stage, user: str) -> bytes:
    """A user's attempt, the same with each call: its key tells what became of it."""
    path = f"/api/v1/coupons/{stage.coupon_id}/issue"
    return request_bytes("POST", path, stage.service.token(user), key=f"key-of-{user}")


def second_attempts(stage: Stage, results: Sequence[Result]) -> list[Arrival]:
    """Those who got nothing the first time ask again, with the same keys, and some of those who got one."""
    asked = [result for result in results if result.kind == ISSUE]
    refused = [result.who for result in asked if result.status != 201]
    issued = [result.who for result in asked if result.status == 201]
    chosen = refused[:: 1 + len(refused) // MAX_ASKED_AGAIN] + issued[:: 1 + len(issued) // MAX_ASKED_TWICE]
    return [Arrival(number / ASK_AGAIN_PER_S, ISSUE, attempt(stage, user), user) for number, user in enumerate(chosen)]


class Sender:
    """Sends from another process: the load must not share an interpreter with anything."""

    def __init__(self, pool: multiprocessing.pool.Pool) -> None:
        self._pool = pool

    def begin(self, port: int, arrivals: list[Arrival]) -> Sending:
        """Begin to send, in a moment.

        Args:
            port: of the web server.
            arrivals: the plan.
        """
        start_s = time.perf_counter() + LEAD_S
        return Sending(start_s, self._pool.apply_async(_send, (port, arrivals, start_s)))

    def send(self, port: int, arrivals: list[Arrival]) -> list[Result]:
        """Send and wait for the results; arguments as in `begin`."""
        return self.begin(port, arrivals).results(30.0) if arrivals else []


class Sending:
    """A load under way, and its clock."""

    def __init__(self, start_s: float, pending: multiprocessing.pool.AsyncResult[list[Result]]) -> None:
        self._start_s = start_s
        self._pending = pending

    def now_s(self) -> float:
        """Seconds since the first request."""
        return time.perf_counter() - self._start_s

    def sleep_until(self, at_s: float) -> None:
        """Wait for a moment of the load's clock, in seconds."""
        time.sleep(max(0.0, at_s - self.now_s()))

    def results(self, timeout_s: float) -> list[Result]:
        """What became of every request, in the order of their times; waits for the last one."""
        return sorted(self._pending.get(timeout_s), key=lambda result: result.at_s)


@contextmanager
def sender() -> Iterator[Sender]:
    """A process that sends; it is up when this returns."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pool.apply(_be_there)
        yield Sender(pool)


def _be_there() -> None:
    """Nothing: to have been called, the process has started and knows this file."""


def _send(port: int, arrivals: list[Arrival], start_s: float) -> list[Result]:
    # Each kind has clients of its own, so that none waits for another kind's answers.
    kinds = sorted({arrival.kind for arrival in arrivals})
    with ThreadPoolExecutor(len(kinds)) as executor:
        parts = [[arrival for arrival in arrivals if arrival.kind == kind] for kind in kinds]
        return [one for part in executor.map(lambda part: _send_kind(port, part, start_s), parts) for one in part]


def _send_kind(port: int, arrivals: list[Arrival], start_s: float) -> list[Result]:
    # Enough for all that can be under way at once, so that none leaves late.
    clients = int(1.5 * len(arrivals) / max(1.0, arrivals[-1].at_s)) + 10
    return open_loop(port, arrivals, clients=clients, start_s=start_s, timeout_s=TIMEOUT_S)
