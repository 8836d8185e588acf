"""`python -m loadtest.bench.notifications`: how fast notifications are, and what they cost issuing.

Targets: commit to delivery below 0.5 s at the median; beside issuing at least 300 deliveries per second,
with issuing at 0.85 or more of its rate without them. On a shared machine only that ratio and the
computing times are steady; the rates depend on what else runs.
"""

from __future__ import annotations

import argparse
import base64
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from multiprocessing import get_context
from statistics import median, quantiles

import psutil

from couponapp.issuing.statement import issue
from couponapp.local.processes import Child
from couponapp.storage.pool import Pool, Timeouts
from loadtest.driver.generator import closed_loop
from loadtest.driver.http_client import request_bytes
from loadtest.load.figures import percentiles_ms
from loadtest.testbed.service import Service, running_service

QUIET = 60
QUIET_EVERY_S = 0.25
MESSAGES = 10_000
# Short turns, since a shared machine's own speed changes within seconds.
TURNS = 12
SECONDS = 1.5
CLIENTS = 32
USERS_PER_TURN = 5_000
# More than one turn delivers: the backlog lasts from the first turn to the last.
AHEAD = 2_000
GIVE_UP_S = 300.0
UNLIMITED = "1000000/second"
SECRET = "whsec_" + base64.b64encode(b"a-webhook-secret-of-32-bytes-123").decode()
UNSENT = "SELECT count(*) AS n FROM outbox WHERE sent_at IS NULL"
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_KEY = re.compile(rb"webhook-id: (\S+)", re.IGNORECASE)


class Receiver:
    """Accepts every event with as little work as possible, since it shares the machine with what it measures.

    Attributes:
        at_s: when each event arrived first, by its key.
    """

    def __init__(self) -> None:
        self.at_s: dict[str, float] = {}
        self._server = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            threading.Thread(target=self._receive, args=(self._server.accept()[0],), daemon=True).start()

    def _receive(self, connection: socket.socket) -> None:
        data = b""
        while received := connection.recv(65_536):
            data += received
            head, end, body = data.partition(b"\r\n\r\n")
            length, key = _LENGTH.search(head), _KEY.search(head)
            if end and length and key and len(body) >= int(length[1]):
                self.at_s.setdefault(key[1].decode(), time.perf_counter())
                data = b""
                connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return 0."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench.notifications", description=__doc__)
    parser.add_argument("--messages", type=int, default=MESSAGES, help="of the second part (default %(default)s)")
    parser.add_argument("--turns", type=int, default=TURNS, help="of the third part (default %(default)s)")
    given = parser.parse_args(arguments)
    if not 1 <= given.messages <= 1_000_000 or not 1 <= given.turns <= 100:
        parser.error("1 to 1,000,000 messages and 1 to 100 turns")
    receiver = Receiver()
    with running_service(
        COUPON_NOTIFY_CHANNELS="webhook",
        COUPON_WEBHOOK_URL=f"http://127.0.0.1:{receiver.port}/",
        COUPON_WEBHOOK_SECRET=SECRET,
        COUPON_WEBHOOK_PRIVATE="1",
        COUPON_LIMIT_GLOBAL="100000000/minute",
        COUPON_DEADLINE_MS="5000",
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
        _wait(lambda: bool(receiver.at_s))  # until the worker has started: the first one does not count
        time.sleep(QUIET_EVERY_S)
    _wait(lambda: len(receiver.at_s) == len(committed_s))
    took = percentiles_ms([receiver.at_s[key] - at_s for key, at_s in list(committed_s.items())[1:]])
    print(f"quiet: commit to delivery p50 {took[50]:.0f} ms, p95 {took[95]:.0f} ms, p99 {took[99]:.0f} ms", flush=True)
    worker.end(15)


def measure_backlog(service: Service, receiver: Receiver, messages: int) -> None:
    """Deliver a backlog without a rate; print deliveries per second and computing time for each."""
    service.environ["COUPON_WEBHOOK_RATE"] = UNLIMITED
    worker, before = service.start_worker(), len(receiver.at_s)
    _issue_to(service, "first", 1)
    _wait(lambda: len(receiver.at_s) > before)  # the worker has started
    with _suspended(worker):
        _issue_to(service, "crowd", messages)
        time.sleep(1.0)  # the sessions that issued end, and PostgreSQL counts their time
        spent_s = _computing_s(service, worker)
    began_s = time.perf_counter()
    _wait(lambda: (service.pool.fetch_one(UNSENT) or {})["n"] == 0)
    rate = messages / (time.perf_counter() - began_s)
    each_ms = {name: 1000 * (s - spent_s[name]) / messages for name, s in _computing_s(service, worker).items()}
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
        with nullcontext() if delivering else _suspended(worker):
            before, began_s = len(receiver.at_s), time.perf_counter()
            rate, statuses = clients.submit(closed_loop, port, requests, clients=CLIENTS, seconds=SECONDS).result()
            delivered = (len(receiver.at_s) - before) / (time.perf_counter() - began_s)
        if statuses != {201}:
            raise RuntimeError(f"answers were {statuses}, not 201 only")
        return rate, delivered

    seen: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    # The clients run in a process of their own, so as not to compete with the receiver's threads.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as clients:
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
    with ThreadPoolExecutor(4) as executor:
        list(executor.map(lambda number: issue(pool, coupon_id, f"{name}-{number}"), range(users)))
    pool.close()


@contextmanager
def _suspended(worker: Child) -> Iterator[None]:
    """Suspend the worker and all its parts until the block ends."""
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
    """Return the processor time used so far, in seconds, by role; the receiver's is this process's."""
    children = {"worker": worker, "PostgreSQL": service.postgres.child, "Valkey": service.valkey.child}
    found = {name: _of_family(child.process.pid) for name, child in children.items() if child}
    return {**found, "receiver": time.process_time()}


def _of_family(pid: int) -> float:
    process = psutil.Process(pid)
    times = [process.cpu_times(), *(child.cpu_times() for child in process.children(recursive=True))]
    # A session of PostgreSQL that has ended counts with its parent.
    return float(sum(one.user + one.system for one in times) + times[0].children_user + times[0].children_system)


def _wait(condition: Callable[[], bool]) -> None:
    give_up_s = time.perf_counter() + GIVE_UP_S
    while not condition():
        if time.perf_counter() > give_up_s:
            raise RuntimeError("not delivered in time")
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
