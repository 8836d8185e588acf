"""Which worker class: the same service under several, in turn, in one run, as ratios.

`python -m loadtest.worker_classes`. Two questions, since a class that wins one may lose the other: what
does the issue endpoint do at 32 connections, and what does one good client see while 500 others send
nothing, or half a head? The figures of docs/decisions/0006 come from here.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import median

import psutil

from couponapp import open_files
from loadtest.client import HOST, Connection, request_bytes
from loadtest.report import percentiles_ms
from loadtest.service import Service, running_service

OURS = "ours (gevent, bounded)"
# Name in the table, and gunicorn's arguments. Not sync, of which one silent client holds a process.
CLASSES = {
    OURS: (),
    "gevent": ("--worker-class", "gevent"),
    "gthread, 8 threads": ("--worker-class", "gthread", "--threads", "8"),
    "gthread, 32 threads": ("--worker-class", "gthread", "--threads", "32"),
}
ROUNDS = 10
SECONDS = 1.5
WARM_UP_S = 1.0
CLIENTS = 32
SLOW_CLIENTS = 500
# More than one part can use up at any rate that this was seen to reach.
USERS_PER_ROUND = 6_000
# A good client gives up after this, and asks again.
PATIENCE_S = 2.0
RECOVERY_S = 60.0
HALVES = {"500 silent": b"", "500 half heads": b"GET / HTTP/1.1\r\nHost: localhost\r\nAcc"}
LOOK_UP = request_bytes("GET", "/api/v1/coupons")


@dataclass
class Seen:
    """What one class has shown.

    Attributes:
        rates: issues per second, per round.
        issue_s: latencies of issuing.
        cpu_s: computing time of the web processes while they issued; less than the rest a matter of
            what else the machine does.
        good_s: latencies of the good client, by what the slow ones send.
        lost: how often the good client gave up, likewise.
    """

    rates: list[float] = field(default_factory=list)
    issue_s: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    good_s: dict[str, list[float]] = field(default_factory=lambda: {what: [] for what in HALVES})
    lost: dict[str, int] = field(default_factory=lambda: dict.fromkeys(HALVES, 0))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns 0."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.worker_classes", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds of each (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="length of each part (default %(default)s)")
    given = parser.parse_args(arguments)
    if not 1 <= given.rounds <= 50 or not 0.5 <= given.seconds <= 60:
        parser.error("1 to 50 rounds of 0.5 to 60 seconds")
    open_files.connections(SLOW_CLIENTS, others=200)
    with running_service(COUPON_LIMIT_GLOBAL="100000000/minute", COUPON_DEADLINE_MS="5000") as service:
        seen = measure(service, rounds=given.rounds, seconds=given.seconds)
    print(table(seen))
    return 0


def measure(service: Service, *, rounds: int, seconds: float) -> dict[str, Seen]:
    """What each class has shown; they take turns within each round, in another order each time."""
    ports, masters = {}, {}
    for name, arguments in CLASSES.items():
        ports[name] = service.start_web(arguments=arguments)
        masters[name] = psutil.Process(service.web.process.pid)
        _issue(service, ports[name], f"warm-up {name}", WARM_UP_S)
    seen = {name: Seen() for name in CLASSES}
    for number in range(rounds):
        for name in random.sample(list(CLASSES), len(CLASSES)):
            one, port = seen[name], ports[name]
            before_s = _cpu_s(masters[name])
            rate, latencies_s = _issue(service, port, f"{name} {number}", seconds)
            one.cpu_s += _cpu_s(masters[name]) - before_s
            one.rates.append(rate)
            one.issue_s += latencies_s
            for what, half in HALVES.items():
                with hanging(port, half):
                    answered_s, lost = ask_again_and_again(port, seconds)
                one.good_s[what] += answered_s
                one.lost[what] += lost
                _wait_until_recovered(port)
            print(f"round {number + 1} of {rounds}: {name}: {rate:.0f}/s", flush=True)
    return seen


def _issue(service: Service, port: int, users: str, seconds: float) -> tuple[float, list[float]]:
    path = f"/api/v1/coupons/{service.new_coupon(USERS_PER_ROUND)}/issue"
    tokens = (service.token(f"{users}-{number}") for number in range(USERS_PER_ROUND))
    requests = [request_bytes("POST", path, token) for token in tokens]
    # Not a thread of this process: the generator must not share an interpreter with anything.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(issue_for, (port, requests, seconds))


def _cpu_s(master: psutil.Process) -> float:
    times = [worker.cpu_times() for worker in master.children()]
    return float(sum(one.user + one.system for one in times))


def issue_for(port: int, requests: list[bytes], seconds: float) -> tuple[float, list[float]]:
    """Issue from 32 connections that never pause: answers per second, and their latencies.

    Args:
        port: on loopback.
        requests: one per user; each is sent once.
        seconds: for how long.

    Raises:
        RuntimeError: an answer was no 201, or there are too few requests.
    """
    waiting = iter(requests)
    stop_s = time.perf_counter() + seconds

    def client(_: int) -> list[float]:
        connection, latencies_s = Connection(port), []
        while (began_s := time.perf_counter()) < stop_s:
            reply = connection.exchange(next(waiting, b""))
            if reply.status != 201:
                raise RuntimeError(f"{reply.code} instead of ISSUED")
            latencies_s.append(time.perf_counter() - began_s)
        connection.close()
        return latencies_s

    began_s = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as executor:
        latencies_s = [latency_s for one in executor.map(client, range(CLIENTS)) for latency_s in one]
    return len(latencies_s) / (time.perf_counter() - began_s), latencies_s


@contextmanager
def hanging(port: int, half: bytes) -> Iterator[None]:
    """500 clients that send this, and then nothing more.

    Args:
        port: on loopback.
        half: what they send.
    """
    with ExitStack() as stack:
        for _ in range(SLOW_CLIENTS):
            client = stack.enter_context(socket.create_connection((HOST, port), timeout=PATIENCE_S))
            client.sendall(half)
        yield


def ask_again_and_again(port: int, seconds: float) -> tuple[list[float], int]:
    """Look up coupons, one after the other, each on a new connection.

    Args:
        port: on loopback.
        seconds: for how long.

    Returns:
        How long each answer took, and how many did not come in time.
    """
    latencies_s, lost = [], 0
    stop_s = time.perf_counter() + seconds
    while (began_s := time.perf_counter()) < stop_s:
        if _answers(port):
            latencies_s.append(time.perf_counter() - began_s)
        else:
            lost += 1
    return latencies_s, lost


def _answers(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=PATIENCE_S) as client:
            client.sendall(LOOK_UP)
            return client.recv(65_536).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False


def _wait_until_recovered(port: int) -> None:
    give_up_s = time.monotonic() + RECOVERY_S
    while not _answers(port):
        if time.monotonic() > give_up_s:
            raise RuntimeError("does not answer again although the slow clients have gone")


def table(seen: dict[str, Seen]) -> str:
    """Issuing: rate, latency and computing time. The good client: latency, and how often it gave up."""
    lines = ["", f"{'':<24}{'32 clients issue':>35}" + "".join(f"{what:>28}" for what in HALVES)]
    lines.append(
        f"{'':<24}{'per s':>9}{'of ours':>9}{'p99 ms':>8}{'CPU ms':>9}"
        + f"{'p50 ms':>10}{'p99 ms':>9}{'gave up':>9}" * len(HALVES)
    )
    for name, one in seen.items():
        of_ours = median(rate / ours for rate, ours in zip(one.rates, seen[OURS].rates, strict=True))
        cpu_ms = 1000 * one.cpu_s / len(one.issue_s)
        line = (
            f"{name:<24}{median(one.rates):>9.0f}{of_ours:>9.2f}{percentiles_ms(one.issue_s)[99]:>8.0f}{cpu_ms:>9.2f}"
        )
        for what in HALVES:
            if one.good_s[what]:
                good_ms = percentiles_ms(one.good_s[what])
                line += f"{good_ms[50]:>10.1f}{good_ms[99]:>9.1f}"
            else:
                line += f"{'-':>10}{'-':>9}"
            asked = one.lost[what] + len(one.good_s[what])
            line += f"{one.lost[what] / asked:>9.0%}"
        lines.append(line)
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
