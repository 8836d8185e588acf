"""Clients of a web server under test: one, a crowd, a steady pressure, some in the middle of an attempt."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from loadtest.driver.http_client import HttpConnection, Reply
from tests.support.breakable import Site
from tests.support.servers import Web, wait_until

# What the issue promises at the usual deadline of a second; the tests' own is shorter, which
# leaves room for a machine that is busy with something else.
BOUND_S = 1.5
RECOVERY_TIMEOUT_S = 30.0
# So that a service that answers at once does not keep the whole machine busy.
PAUSE_S = 0.01


@dataclass(frozen=True)
class Timed:
    """An answer and how long it took, in seconds."""

    reply: Reply
    seconds: float


def ask(web: Web, request: bytes, *, timeout_s: float = 30.0) -> Timed:
    """One request on a connection of its own; status 0 where no answer comes."""
    connection, began_s = HttpConnection(web.port, timeout_s), time.monotonic()
    reply = connection.exchange(request)
    connection.close()
    return Timed(reply, time.monotonic() - began_s)


def crowd(web: Web, requests: Sequence[bytes], *, timeout_s: float = 30.0) -> list[Timed]:
    """All at once."""
    with ThreadPoolExecutor(len(requests)) as executor:
        return list(executor.map(lambda request: ask(web, request, timeout_s=timeout_s), requests))


def out_of_bounds(answers: Iterable[Timed], *statuses: int) -> list[str]:
    """What is wrong with these answers: late, of another status, or a refusal that does not say when to come again."""
    wrong = []
    for answer in answers:
        reply = answer.reply
        if answer.seconds > BOUND_S:
            wrong.append(f"after {answer.seconds:.1f} s")
        if reply.status not in statuses:
            wrong.append(f"{reply.status} {reply.code}")
        if reply.status in (429, 503) and not reply.retry_after_s:
            wrong.append(f"{reply.status} without Retry-After")
    return wrong


def wait_until_it_issues(web: Web, site: Site) -> None:
    """Without a restart."""
    wait_until(
        lambda: ask(web, site.attempt()).reply.status == 201, timeout_s=RECOVERY_TIMEOUT_S, what="it issues again"
    )


@contextmanager
def pressed(web: Web, site: Site, *, clients: int) -> Iterator[None]:
    """So many clients attempt one time after the other until the block ends, with a short pause in between."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(PAUSE_S):
            ask(web, site.attempt())

    with ThreadPoolExecutor(clients) as executor:
        running = [executor.submit(run) for _ in range(clients)]
        try:
            yield
        finally:
            stop.set()
            for one in running:
                one.result(60)


@contextmanager
def in_flight(web: Web, site: Site, count: int) -> Iterator[list[Future[Timed]]]:
    """Attempts whose statements wait for the stock, and get it when the block ends; no more than a pool has."""
    with ThreadPoolExecutor(count) as executor, site.stock_locked():
        waiting = [executor.submit(ask, web, site.attempt()) for _ in range(count)]
        site.wait_until_attempts_wait(count)
        yield waiting
