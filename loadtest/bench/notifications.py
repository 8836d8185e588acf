"""`python -m loadtest.bench.notifications`: how fast notifications are, and what they cost issuing.

Targets: commit to delivery below 0.5 s at the median; beside issuing at least 300 deliveries per second,
with issuing at 0.85 or more of its rate without them. On a shared machine only that ratio and the
computing times are steady; the rates depend on what else runs.
"""

from __future__ import annotations

import argparse
import re
import socket
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from functools import partial
from statistics import median, quantiles

import psutil

from couponapp.issuing.statement import issue
from couponapp.storage.pool import Pool, Timeouts
from loadtest.bench.servers import cpu_s
from loadtest.driver.background import sending_process
from loadtest.driver.generator import closed_loop
from loadtest.driver.http_client import CHUNK_BYTES, request_bytes
from loadtest.load.figures import percentiles_ms
from loadtest.testbed.command_line import between
from loadtest.testbed.listener import Listener
from loadtest.testbed.processes import Processes, family, suspended
from loadtest.testbed.service import Service, running_service
from loadtest.testbed.waiting import wait_until
from loadtest.testbed.webhook_receiver import channel_to

QUIET = 60
QUIET_EVERY_S = 0.25
# Short turns, since a shared machine's own speed changes within seconds.
TURNS = 12
SECONDS = 1.5
CLIENTS = 32
USERS_PER_TURN = 5_000
# More than one turn delivers: the backlog lasts from the first turn to the last.
AHEAD = 2_000
UNLIMITED = "1000000/second"
UNSENT = "SELECT count(*) AS n FROM outbox WHERE sent_at IS NULL"
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_KEY = re.compile(rb"webhook-id: (\S+)", re.IGNORECASE)
wait_for = partial(wait_until, otherwise="not delivered in time", timeout_s=300.0)


class Receiver(Listener):
    """Accepts every event with as little work as possible, since it shares the machine with what it measures.

    Attributes:
        at_s: when each event arrived first, by its key.
    """

    def __init__(self) -> None:
        self.at_s: dict[str, float] = {}
        super().__init__()

    def _serve(self, client: socket.socket) -> None:
        data = b""
        while received := client.recv(CHUNK_BYTES):
            data += received
            head, end, body = data.partition(b"\r\n\r\n")
            length, key = _LENGTH.search(head), _KEY.search(head)
            if end and length and key and len(body) >= int(length[1]):
                self.at_s.setdefault(key[1].decode(), time.perf_counter())
                data = b""
                client.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return 0."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench.notifications", description=__doc__)
    parser.add_argument(
        "--messages", type=between(1, 1_000_000), default=10_000, help="of the second part (default %(default)s)"
    )
    parser.add_argument("--turns", type=between(1, 100), default=TURNS, help="of the third part (default %(default)s)")
    given = parser.parse_args(arguments)
    receiver = Receiver()
    with running_service(
        COUPON_LIMIT_GLOBAL="100000000/minute", COUPON_DEADLINE_MS="5000", **channel_to(receiver.port)
    ) as service:
        measure_latency(service, receiver)
        measure_backlog(service, receiver, given.messages)
        measure_issuing(service, receiver, given.turns)
    return 0


def measure_latency(service: Service, receiver: Receiver) -> None:
    """Issue one at a time; print the time from commit to delivery."""
    worker, coupon_id, committed_s = service.start_worker(), service.new_coupon(QUIET + 1), {}
    for number in range(QUIET + 1):
        issuance = issue(service.pool, coupon_id, f"quiet-{number}").issuance
        assert issuance is not None
        committed_s[f"issuance_issued_{issuance.id}"] = time.perf_counter()
        wait_for(lambda: receiver.at_s)  # until the worker has started: the first one does not count
        time.sleep(QUIET_EVERY_S)
    wait_for(lambda: len(receiver.at_s) == len(committed_s))
    took = percentiles_ms([receiver.at_s[key] - at_s for key, at_s in list(committed_s.items())[1:]])
    print(f"quiet: commit to delivery p50 {took[50]:.0f} ms, p95 {took[95]:.0f} ms, p99 {took[99]:.0f} ms", flush=True)
    worker.end(15)


def measure_backlog(service: Service, receiver: Receiver, messages: int) -> None:
    """Deliver a backlog without a rate; print deliveries per second and computing time for each."""
    service.environ["COUPON_WEBHOOK_RATE"] = UNLIMITED
    worker, before = service.start_worker(), len(receiver.at_s)
    children = {"worker": worker, "PostgreSQL": service.postgres.child, "Valkey": service.valkey.child}
    processes: Processes = {
        **{name: partial(family, child) for name, child in children.items()},
        "receiver": lambda: iter([psutil.Process()]),
    }
    _issue_to(service, "first", 1)
    wait_for(lambda: len(receiver.at_s) > before)  # the worker has started
    with suspended(worker):
        _issue_to(service, "crowd", messages)
        time.sleep(1.0)  # the sessions that issued end, and PostgreSQL counts their time
        spent_s = cpu_s(processes)
    began_s = time.perf_counter()
    wait_for(lambda: (service.pool.fetch_one(UNSENT) or {})["n"] == 0)
    rate = messages / (time.perf_counter() - began_s)
    each_ms = {name: 1000 * (s - spent_s[name]) / messages for name, s in cpu_s(processes).items()}
    shown = ", ".join(f"{name} {ms:.2f} ms" for name, ms in each_ms.items())
    print(f"crowd: {messages} messages, {rate:.0f} deliveries/s; computing time for each: {shown}", flush=True)
    worker.end(15)


def measure_issuing(service: Service, receiver: Receiver, turns: int) -> None:
    """Issue with and without a worker that delivers meanwhile, in short turns; print the ratio."""
    del service.environ["COUPON_WEBHOOK_RATE"]
    port, worker = service.start_web(), service.start_worker()

    def turn(name: str, *, delivering: bool) -> tuple[float, float]:
        """Return coupons issued and events delivered per second."""
        path = f"/api/v1/coupons/{service.new_coupon(USERS_PER_TURN)}/issue"
        requests = [request_bytes("POST", path, service.token(f"{name}-{n}")) for n in range(USERS_PER_TURN)]
        with nullcontext() if delivering else suspended(worker):
            before, began_s = len(receiver.at_s), time.perf_counter()
            rate, _, statuses = clients.apply(closed_loop, (port, requests), {"clients": CLIENTS, "seconds": SECONDS})
            delivered = (len(receiver.at_s) - before) / (time.perf_counter() - began_s)
        if statuses != {201}:
            raise RuntimeError(f"answers were {statuses}, not 201 only")
        return rate, delivered

    seen: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    # The clients run in a process of their own, so as not to compete with the receiver's threads.
    with sending_process(closed_loop) as clients:
        turn("first", delivering=False)  # fills caches and opens connections
        _issue_to(service, "ahead", AHEAD)
        for number in range(turns):
            for delivering in (bool(number % 2), not number % 2):
                seen[delivering].append(turn(f"{number}-{delivering}", delivering=delivering))
    worker.end(15)
    (shared, delivered), (alone, _) = (zip(*seen[delivering], strict=True) for delivering in (True, False))
    ratios = [one / other for one, other in zip(shared, alone, strict=True)]
    low, middle, high = quantiles(ratios, n=4) if turns > 1 else ratios * 3
    print(
        f"shared: issuing {median(alone):.0f}/s without deliveries, {median(shared):.0f}/s with "
        f"{median(delivered):.0f} deliveries/s: {middle:.2f} of it (quartiles {low:.2f} to {high:.2f}, {turns} turns)"
    )


def _issue_to(service: Service, name: str, users: int) -> None:
    """Issue a new coupon to this many users."""
    coupon_id = service.new_coupon(users)
    pool = Pool(service.postgres.url, name="crowd", max_size=4, timeouts=Timeouts.within(20_000))
    with closing(pool), ThreadPoolExecutor(4) as executor:
        list(executor.map(lambda number: issue(pool, coupon_id, f"{name}-{number}"), range(users)))


if __name__ == "__main__":
    sys.exit(main())
