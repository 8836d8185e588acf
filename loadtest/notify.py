"""`python -m loadtest.notify`: notifications to a local receiver: how soon, how many, at what price for issuing.

On a shared machine only the ratio of the last part and the computing times say much; the rates depend
on what else runs.
"""

from __future__ import annotations

import argparse
import base64
import multiprocessing
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median

import psutil

from couponapp.issuing.issue import issue
from couponapp.storage.pool import Pool, Timeouts
from loadtest.client import request_bytes
from loadtest.generator import closed_loop
from loadtest.report import percentiles_ms
from loadtest.service import Service, running_service

QUIET = 60
QUIET_EVERY_S = 0.25
MESSAGES = 10_000
ROUNDS = 4
SECONDS = 4.0
CLIENTS = 32
USERS_PER_ROUND = 12_000
GIVE_UP_S = 300.0
SECRET = "whsec_" + base64.b64encode(b"a-webhook-secret-of-32-bytes-123").decode()
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
    with connection, connection.makefile("rb") as stream:
        while True:
            key, length = "", 0
            while (line := stream.readline().lower()) not in (b"\r\n", b""):
                name, _, value = line.partition(b": ")
                if name == b"webhook-id":
                    key = value.strip().decode()
                elif name == b"content-length":
                    length = int(value)
            if not key:
                return
            stream.read(length)
            arrivals.at_s.setdefault(key, time.perf_counter())
            connection.sendall(ACCEPTED)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns 0."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.notify", description=__doc__)
    parser.add_argument("--messages", type=int, default=MESSAGES, help="of the second part (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of the third part (default %(default)s)")
    parser.add_argument("--rate", default="", help="COUPON_WEBHOOK_RATE in the third part, such as 400/second")
    parser.add_argument("--concurrency", type=int, default=4, help="COUPON_NOTIFY_CONCURRENCY (default %(default)s)")
    given = parser.parse_args(arguments)
    if not 1 <= given.messages <= 1_000_000 or not 1 <= given.rounds <= 50:
        parser.error("1 to 1,000,000 messages and 1 to 50 rounds")
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
        beside(service, arrivals, given.rounds, given.rate)
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
    coupon_id, before = service.new_coupon(messages), len(arrivals.at_s)
    pool = Pool(service.postgres.url, name="crowd", max_size=4, timeouts=Timeouts.within(20_000))
    threads = [
        threading.Thread(target=lambda part: [issue(pool, coupon_id, f"crowd-{n}") for n in part], args=(part,))
        for part in (range(start, messages, 4) for start in range(4))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pool.close()
    time.sleep(1.0)  # its sessions end, and PostgreSQL counts them
    idle_s = {name: _computing_s(name, service) for name in ("worker", "PostgreSQL", "Valkey")}
    worker = service.start_worker()
    _wait_for(arrivals, before + messages)
    began_s = sorted(arrivals.at_s.values())[before]
    _wait_until_noted(service)
    rate = messages / (time.perf_counter() - began_s)
    spent_s = {name: _computing_s(name, service, worker.process.pid) - base for name, base in idle_s.items()}
    shown = ", ".join(f"{name} {1000 * seconds / messages:.2f} ms" for name, seconds in spent_s.items())
    print(f"crowd: {messages} messages, {rate:.0f} deliveries/s; computing time for each: {shown}", flush=True)
    worker.end(15)


def _computing_s(name: str, service: Service, worker_pid: int = 0) -> float:
    """Seconds of processor time that a part has used so far."""
    if name == "worker":
        return _of_family(worker_pid) if worker_pid else 0.0
    server = service.postgres if name == "PostgreSQL" else service.valkey
    return _of_family(server.child.process.pid) if server.child else 0.0


def _of_family(pid: int) -> float:
    process = psutil.Process(pid)
    times = [process.cpu_times(), *(child.cpu_times() for child in process.children(recursive=True))]
    # PostgreSQL's sessions that have ended are counted with their parent.
    return float(sum(one.user + one.system for one in times) + times[0].children_user + times[0].children_system)


def beside(service: Service, arrivals: Arrivals, rounds: int, rate: str) -> None:
    """The issue endpoint without and with a worker that delivers meanwhile, in turn, as a ratio."""
    port, ratios = service.start_web(), []
    service.environ["COUPON_WEBHOOK_RATE"] = rate
    for number in range(rounds):
        rates = {}
        order = ("without", "with") if number % 2 else ("with", "without")
        for name in order:
            before = len(arrivals.at_s)
            worker = service.start_worker() if name == "with" else None
            if worker:
                time.sleep(3.0)  # what starting costs is not asked here
            tokens = [service.token(f"{name}-{number}-{user}") for user in range(USERS_PER_ROUND)]
            path = f"/api/v1/coupons/{service.new_coupon(USERS_PER_ROUND)}/issue"
            rates[name] = _rate(port, [request_bytes("POST", path, token) for token in tokens])
            delivered = (len(arrivals.at_s) - before) / SECONDS
            print(
                f"  issuing {name} deliveries: {rates[name]:.0f}/s, {delivered:.0f} deliveries/s meanwhile", flush=True
            )
            if worker:
                worker.end(15)
        ratios.append(rates["with"] / rates["without"])
    print(f"beside: issuing with deliveries runs at {median(ratios):.2f} of its rate without (median of {rounds})")


def _rate(port: int, requests: list[bytes]) -> float:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
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
