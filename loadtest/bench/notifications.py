"""`python -m loadtest.bench.notifications`: how soon notifications arrive, how many, at what price for issuing.

On a shared machine only the ratio of the last part and the computing times say much; the rates depend
on what else runs. What it should show: commit to delivery below 0.5 s at the median; in the last part at
least 300 deliveries per second, and issuing at 0.85 or more of its rate without them.
"""

from __future__ import annotations

import argparse
import base64
import multiprocessing
import multiprocessing.pool
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import TypeVar

import psutil

from couponapp.issuing.statement import issue
from couponapp.local.processes import Child
from couponapp.storage.pool import Pool, Timeouts
from loadtest.driver.generator import closed_loop
from loadtest.driver.http_client import request_bytes
from loadtest.load.report import percentiles_ms
from loadtest.testbed.service import Service, running_service

QUIET = 60
QUIET_EVERY_S = 0.25
MESSAGES = 10_000
# Short turns, since a shared machine's own speed goes up and down within seconds.
TURNS = 12
SECONDS = 1.5
CLIENTS = 32
USERS_PER_TURN = 5_000
# More than a turn's worth waits for delivery when the first one begins.
AHEAD = 2_000
GIVE_UP_S = 300.0
UNBOUND = "1000000/second"
SECRET = "whsec_" + base64.b64encode(b"a-webhook-secret-of-32-bytes-123").decode()
T = TypeVar("T")
ACCEPTED = b"HTTP/1.1 204 No Content\r\n\r\n"


@dataclass
class Arrivals:
    """When each message came, by its key."""

    at_s: dict[str, float] = field(default_factory=dict)
    port: int = 0


@contextmanager
def cheap_receiver() -> Iterator[Arrivals]:
    """Accept everything, with as little work as possible: it shares the machine with what it measures."""
    arrivals = Arrivals()
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        arrivals.port = server.getsockname()[1]
        threading.Thread(target=_accept, args=(server, arrivals), daemon=True).start()
        yield arrivals


def _accept(server: socket.socket, arrivals: Arrivals) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=_receive, args=(connection, arrivals), daemon=True).start()


def _receive(connection: socket.socket, arrivals: Arrivals) -> None:
    with connection:
        data = b""
        while received := connection.recv(65_536):
            data += received
            head, end, body = data.partition(b"\r\n\r\n")
            if not end or len(body) < _header(head, b"content-length: ", int):
                continue
            arrivals.at_s.setdefault(_header(head, b"webhook-id: ", bytes.decode), time.perf_counter())
            data = b""
            connection.sendall(ACCEPTED)


def _header(head: bytes, name: bytes, read: Callable[[bytes], T]) -> T:
    return read(head.lower().partition(name)[2].partition(b"\r")[0])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns 0."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench.notifications", description=__doc__)
    parser.add_argument("--messages", type=int, default=MESSAGES, help="of the second part (default %(default)s)")
    parser.add_argument("--turns", type=int, default=TURNS, help="of the third part (default %(default)s)")
    parser.add_argument("--rate", default="", help="COUPON_WEBHOOK_RATE in the third part; the service's own if unset")
    parser.add_argument("--concurrency", type=int, default=4, help="COUPON_NOTIFY_CONCURRENCY (default %(default)s)")
    given = parser.parse_args(arguments)
    if not 1 <= given.messages <= 1_000_000 or not 1 <= given.turns <= 100:
        parser.error("1 to 1,000,000 messages and 1 to 100 turns")
    with cheap_receiver() as arrivals, running_service(
        COUPON_NOTIFY_CHANNELS="webhook",
        COUPON_NOTIFY_CONCURRENCY=str(given.concurrency),
        COUPON_WEBHOOK_URL=f"http://127.0.0.1:{arrivals.port}/",
        COUPON_WEBHOOK_SECRET=SECRET,
        COUPON_WEBHOOK_PRIVATE="1",
        COUPON_LIMIT_GLOBAL="100000000/minute",
        COUPON_DEADLINE_MS="5000",
    ) as service:  # fmt: skip
        quiet(service, arrivals)
        crowd(service, arrivals, given.messages)
        beside(service, arrivals, given.turns, given.rate)
    return 0


def quiet(service: Service, arrivals: Arrivals) -> None:
    """One at a time: from the commit to the receiver."""
    worker = service.start_worker()
    coupon_id, committed = service.new_coupon(QUIET + 1), {}
    for number in range(QUIET + 1):
        attempt = issue(service.pool, coupon_id, f"quiet-{number}")
        assert attempt.issuance is not None
        key = f"issuance_issued_{attempt.issuance.id}"
        committed[key] = time.perf_counter()
        if number == 0:
            _wait_for(arrivals, 1)  # the worker has started
        time.sleep(QUIET_EVERY_S)
    _wait_for(arrivals, len(committed))
    took = percentiles_ms([arrivals.at_s[key] - at_s for key, at_s in list(committed.items())[1:]])
    print(f"quiet: commit to delivery p50 {took[50]:.0f} ms, p95 {took[95]:.0f} ms, p99 {took[99]:.0f} ms", flush=True)
    worker.end(15)


def crowd(service: Service, arrivals: Arrivals, messages: int) -> None:
    """So many that wait already: deliveries per second, until all are noted as sent."""
    service.environ["COUPON_WEBHOOK_RATE"] = UNBOUND
    worker = service.start_worker()
    issue_to(service, "first", 1)
    _wait_for(arrivals, len(arrivals.at_s) + 1)  # what starting costs is not asked here
    with _suspended(worker):
        before = len(arrivals.at_s)
        issue_to(service, "crowd", messages)
        time.sleep(1.0)  # the sessions that issued end, and PostgreSQL counts them
        spent_s = _computing_s(service, worker)
    began_s = time.perf_counter()
    _wait_for(arrivals, before + messages)
    _wait_until_noted(service)
    rate = messages / (time.perf_counter() - began_s)
    each_ms = {name: 1000 * (now_s - spent_s[name]) / messages for name, now_s in _computing_s(service, worker).items()}
    shown = ", ".join(f"{name} {ms:.2f} ms" for name, ms in each_ms.items())
    print(f"crowd: {messages} messages, {rate:.0f} deliveries/s; computing time for each: {shown}", flush=True)
    worker.end(15)


def issue_to(service: Service, name: str, users: int) -> None:
    """Issue a new coupon to so many."""
    coupon_id = service.new_coupon(users)
    pool = Pool(service.postgres.url, name="crowd", max_size=4, timeouts=Timeouts.within(20_000))
    threads = [
        threading.Thread(target=lambda part: [issue(pool, coupon_id, f"{name}-{n}") for n in part], args=(part,))
        for part in (range(start, users, 4) for start in range(4))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pool.close()


@contextmanager
def _suspended(worker: Child) -> Iterator[None]:
    """The worker with all its parts does nothing."""
    supervisor = psutil.Process(worker.process.pid)
    family = [supervisor, *supervisor.children()]
    for one in family:
        one.suspend()
    try:
        yield
    finally:
        for one in family:
            one.resume()


def _computing_s(service: Service, worker: Child) -> dict[str, float]:
    """Seconds of processor time that each part has used so far; the receiver's is this process's."""
    children = {"worker": worker, "PostgreSQL": service.postgres.child, "Valkey": service.valkey.child}
    found = {name: _of_family(child.process.pid) for name, child in children.items() if child}
    return {**found, "receiver": time.process_time()}


def _of_family(pid: int) -> float:
    process = psutil.Process(pid)
    times = [process.cpu_times(), *(child.cpu_times() for child in process.children(recursive=True))]
    # PostgreSQL's sessions that have ended are counted with their parent.
    return float(sum(one.user + one.system for one in times) + times[0].children_user + times[0].children_system)


def beside(service: Service, arrivals: Arrivals, turns: int, rate: str) -> None:
    """The issue endpoint without and with a worker that delivers meanwhile, in short turns, as a ratio."""
    service.environ["COUPON_WEBHOOK_RATE"] = rate
    port, worker = service.start_web(), service.start_worker()
    measured: dict[str, list[float]] = {"with": [], "without": []}
    delivered = []
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        _issued(pool, port, _requests(service, "first"))  # connections, caches, code
        issue_to(service, "ahead", AHEAD)
        for number in range(turns):
            for name in ("with", "without") if number % 2 else ("without", "with"):
                requests = _requests(service, f"{name}-{number}")
                with nullcontext() if name == "with" else _suspended(worker):
                    before, began_s = len(arrivals.at_s), time.perf_counter()
                    measured[name].append(_issued(pool, port, requests))
                    if name == "with":
                        delivered.append((len(arrivals.at_s) - before) / (time.perf_counter() - began_s))
    worker.end(15)
    ratios = [one / other for one, other in zip(measured["with"], measured["without"], strict=True)]
    low, middle, high = quantiles(ratios, n=4) if turns > 1 else ratios * 3
    medians = {name: median(rates) for name, rates in measured.items()}
    print(
        f"beside: issuing {medians['without']:.0f}/s without deliveries, {medians['with']:.0f}/s with "
        f"{median(delivered):.0f} deliveries/s: {middle:.2f} of it (quartiles {low:.2f} to {high:.2f}, {turns} turns)"
    )


def _requests(service: Service, name: str) -> list[bytes]:
    path = f"/api/v1/coupons/{service.new_coupon(USERS_PER_TURN)}/issue"
    return [request_bytes("POST", path, service.token(f"{name}-{user}")) for user in range(USERS_PER_TURN)]


def _issued(pool: multiprocessing.pool.Pool, port: int, requests: list[bytes]) -> float:
    rate, statuses = pool.apply(_closed_loop, (port, requests))
    if statuses != {201}:
        raise RuntimeError(f"answers were {statuses}, not 201 only")
    return rate


def _closed_loop(port: int, requests: list[bytes]) -> tuple[float, set[int]]:
    return closed_loop(port, requests, clients=CLIENTS, seconds=SECONDS)


def _wait_for(arrivals: Arrivals, count: int) -> None:
    _wait(lambda: len(arrivals.at_s) >= count)


def _wait_until_noted(service: Service) -> None:
    sql = "SELECT count(*) AS n FROM outbox WHERE sent_at IS NULL"
    _wait(lambda: (service.pool.fetch_one(sql) or {})["n"] == 0)


def _wait(condition: Callable[[], bool]) -> None:
    give_up_s = time.perf_counter() + GIVE_UP_S
    while not condition():
        if time.perf_counter() > give_up_s:
            raise RuntimeError("not delivered in time")
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
