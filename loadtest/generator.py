"""Sends requests: by a plan (open loop), or as fast as the answers come (closed loop).

In the open loop the times of arrival are planned ahead and latency counts from the planned moment:
a server that stalls does not slow the plan down, and what waits meanwhile is not forgotten.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from loadtest.client import TIMEOUT_S, Connection


@dataclass(frozen=True)
class Arrival:
    """One planned request.

    Attributes:
        at_s: when, in seconds from the start.
        kind: what it is called in the report.
        request: the bytes to send.
        who: the user who asks, where it matters.
    """

    at_s: float
    kind: str
    request: bytes
    who: str = ""


@dataclass(frozen=True)
class Result:
    """What became of a request; times in seconds, latency from the planned moment."""

    at_s: float
    kind: str
    latency_s: float
    status: int
    code: str
    who: str = ""
    retry_after_s: int | None = None

    @property
    def answered_s(self) -> float:
        """When it was answered, or given up, in seconds from the start."""
        return self.at_s + self.latency_s


def open_loop(
    port: int,
    plan: Sequence[Arrival],
    *,
    clients: int,
    progress: Callable[[int], None] = lambda _: None,
    start_s: float | None = None,
    timeout_s: float = TIMEOUT_S,
) -> list[Result]:
    """Send every arrival at its time.

    Args:
        port: on loopback.
        plan: in the order of time.
        clients: connections; with too few of them requests leave late, which the latency shows.
        progress: told every second how many have been answered.
        start_s: when the plan begins, by `time.perf_counter`, which all processes of a machine
            share; now when left out.
        timeout_s: how long a client waits for the server at each step, in seconds.
    """
    results: list[Result] = []
    arrivals = iter(plan)
    lock = threading.Lock()
    start_s = time.perf_counter() if start_s is None else start_s

    def client(_: int) -> None:
        connection = Connection(port, timeout_s)
        while True:
            with lock:
                arrival = next(arrivals, None)
            if arrival is None:
                connection.close()
                return
            time.sleep(max(0.0, start_s + arrival.at_s - time.perf_counter()))
            reply = connection.exchange(arrival.request)
            latency_s = time.perf_counter() - start_s - arrival.at_s
            seen = Result(arrival.at_s, arrival.kind, latency_s, reply.status, reply.code)
            results.append(replace(seen, who=arrival.who, retry_after_s=reply.retry_after_s))

    with ThreadPoolExecutor(clients) as executor:
        running = [executor.submit(client, number) for number in range(clients)]
        while not all(one.done() for one in running):
            time.sleep(min(1.0, 0.05 + plan[-1].at_s / 10))
            progress(len(results))
        for one in running:
            one.result()
    return results


def closed_loop(port: int, requests: Sequence[bytes], *, clients: int, seconds: float) -> tuple[float, set[int]]:
    """Answers per second, and the statuses seen, with so many clients that never pause.

    Args:
        port: on loopback.
        requests: taken in turn, from the start again when they are used up.
        clients: connections.
        seconds: for how long.
    """
    stop_s = time.perf_counter() + seconds
    statuses: set[int] = set()

    def client(number: int) -> int:
        connection, count = Connection(port), 0
        while time.perf_counter() < stop_s:
            reply = connection.exchange(requests[(number + count * clients) % len(requests)])
            statuses.add(reply.status)
            count += 1
        connection.close()
        return count

    began_s = time.perf_counter()
    with ThreadPoolExecutor(clients) as executor:
        answered = sum(executor.map(client, range(clients)))
    return answered / (time.perf_counter() - began_s), statuses
