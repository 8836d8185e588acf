"""The load under which a fault happens: attempts to issue, look-ups, «my coupons»."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from multiprocessing.pool import Pool

from loadtest.driver.generator import Arrival, Result, open_loop
from loadtest.driver.http_client import request_bytes
from loadtest.faults.fault import ISSUE, LOOK_UP, MINE, Fault, Stage

# How long the load runs before the fault.
BEFORE_S = 2.0
READS_PER_S = 40
# More than all requests that can be in flight, so that none waits for another's response.
CLIENTS = 1_000
# Longer than any promise; a request that waits longer has no response.
TIMEOUT_S = 5.0
# From the order to the first request: for the plan to reach the other process.
LEAD_S = 0.5
# For the last response, after a plan has been sent.
RESULTS_TIMEOUT_S = 60.0
MAX_REFUSED_RETRIES = 200
MAX_ISSUED_RETRIES = 50


def plan(stage: Stage, fault: Fault, seconds: float) -> list[Arrival]:
    """Plan all requests of one run; each attempt has a user and a key of its own."""
    arrivals = attempts(
        stage, [f"user-{number}" for number in range(int(fault.rate_per_s * seconds))], fault.rate_per_s
    )
    look_up = request_bytes("GET", f"/api/v1/coupons/{stage.coupon_id}", keep=not fault.look_ups_connect_anew)
    for number in range(int(READS_PER_S * seconds)):
        at_s = number / READS_PER_S
        mine = request_bytes("GET", "/api/v1/me/coupons", stage.service.token(f"user-{number}"))
        arrivals += [Arrival(at_s, LOOK_UP, look_up), Arrival(at_s + 0.5 / READS_PER_S, MINE, mine)]
    return sorted(arrivals, key=lambda arrival: arrival.at_s)


def attempts(stage: Stage, users: Sequence[str], rate_per_s: int) -> list[Arrival]:
    """Plan one attempt for each user, at a constant rate."""
    return [Arrival(n / rate_per_s, ISSUE, attempt(stage, user), user) for n, user in enumerate(users)]


def attempt(stage: Stage, user: str) -> bytes:
    """Return a user's attempt; it is the same for each call, key included."""
    path = f"/api/v1/coupons/{stage.coupon_id}/issue"
    return request_bytes("POST", path, stage.service.token(user), key=f"key-of-{user}")


def retries(stage: Stage, results: Sequence[Result]) -> list[Arrival]:
    """Plan retries with the same keys, of users who got no coupon and of some who got one."""
    refused = [result.who for result in results if result.kind == ISSUE and result.status != 201]
    issued = [result.who for result in results if result.kind == ISSUE and result.status == 201]
    chosen = refused[:: 1 + len(refused) // MAX_REFUSED_RETRIES] + issued[:: 1 + len(issued) // MAX_ISSUED_RETRIES]
    return attempts(stage, chosen, rate_per_s=100)


class Load:
    """Requests that another process is sending, and their clock."""

    def __init__(self, process: Pool, port: int, arrivals: list[Arrival]) -> None:
        """Start to send, in a moment.

        Args:
            process: from `sending_process(open_loop)`.
            port: of the web server.
            arrivals: the plan.
        """
        self._start_s = time.perf_counter() + LEAD_S
        self._pending = process.apply_async(
            open_loop, (port, arrivals), {"clients": CLIENTS, "start_s": self._start_s, "timeout_s": TIMEOUT_S}
        )

    def now_s(self) -> float:
        """Return the seconds since the first request."""
        return time.perf_counter() - self._start_s

    def run_through(self, fault: AbstractContextManager[None], lasts_s: float) -> tuple[float, float, list[Result]]:
        """Let a fault happen after BEFORE_S; return when it began and ended, and the results of the whole load."""
        self._sleep_until(BEFORE_S)
        began_s = self.now_s()
        with fault:
            self._sleep_until(began_s + lasts_s)
        return began_s, self.now_s(), self.results()

    def results(self) -> list[Result]:
        """Wait for the last response; return the results in the order of their planned moments."""
        return sorted(self._pending.get(RESULTS_TIMEOUT_S), key=lambda result: result.at_s)

    def _sleep_until(self, at_s: float) -> None:
        time.sleep(max(0.0, at_s - self.now_s()))
