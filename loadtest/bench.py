"""`make bench`: ours against a bare route and against the usual way, in turn, in one run, as ratios."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import median

import psutil

from couponapp.issuing.issue import issue
from loadtest.client import request_bytes
from loadtest.generator import closed_loop
from loadtest.service import Service, running_service

ROUNDS = 15
SECONDS = 0.7
WARM_UP_S = 1.0
CLIENTS = 32
# Users per second of issuing: more than any rate that this was seen to reach on two cores.
USERS_PER_SECOND = 4_000
BARE, USUAL, ISSUED, SOLD_OUT = "bare route", "FOR UPDATE + 3 limits", "ours: issued", "ours: sold out"
VARIANTS = {BARE: 200, ISSUED: 201, SOLD_OUT: 409, USUAL: 201}


@dataclass
class Seen:
    """What one variant has shown.

    Attributes:
        rates: answers per second, per round.
        cpu_ms: computing time of the servers (web, PostgreSQL, Redis) per answer, per round, in
            milliseconds. Other work on the machine disturbs it less than the rates.
    """

    rates: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns 0."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds of each (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="length of each (default %(default)s)")
    given = parser.parse_args(arguments)
    if not 1 <= given.rounds <= 100 or not 0.2 <= given.seconds <= 60:
        parser.error("1 to 100 rounds of 0.2 to 60 seconds")
    with running_service(COUPON_LIMIT_GLOBAL="100000000/minute", COUPON_DEADLINE_MS="5000") as service:
        print(table(measure(service, rounds=given.rounds, seconds=given.seconds)))
    return 0


def measure(service: Service, *, rounds: int, seconds: float) -> dict[str, Seen]:
    """What each variant shows; they take turns within each round, so that what else the machine does meets all."""
    ours, bare, usual = (
        service.start_web(app)
        for app in ("wsgi:app", "loadtest.baselines.bare:app", "loadtest.baselines.for_update:app")
    )
    ports = {BARE: bare, ISSUED: ours, SOLD_OUT: ours, USUAL: usual}
    sold_out = service.new_coupon(1)
    issue(service.pool, sold_out, "the one who got it")
    seen = {variant: Seen() for variant in VARIANTS}
    # In another process: the generator must not share an interpreter with anything.
    with multiprocessing.get_context("spawn").Pool(1) as generator:
        for number in range(rounds + 1):  # the first one warms up
            length_s = seconds if number else WARM_UP_S
            # New users on a new coupon each time: nobody is told ALREADY_ISSUED.
            count = int(USERS_PER_SECOND * length_s)
            users = [service.token(f"user-{number}-{user}") for user in range(count)]
            coupon_of = {variant: service.new_coupon(count) for variant in (BARE, ISSUED, USUAL)} | {SOLD_OUT: sold_out}
            for variant, status in VARIANTS.items():
                path = f"/api/v1/coupons/{coupon_of[variant]}/issue"
                requests = [request_bytes("POST", path, token) for token in users]
                before_s = _cpu_s(service)
                rate, statuses = generator.apply(_closed_loop, (ports[variant], requests, length_s))
                if statuses != {status}:
                    raise RuntimeError(f"{variant}: answers were {statuses}, not {status} only")
                if number:
                    seen[variant].rates.append(rate)
                    seen[variant].cpu_ms.append(1000 * (_cpu_s(service) - before_s) / (rate * length_s))
    return seen


def table(seen: Mapping[str, Seen]) -> str:
    """Medians, and ratios round by round against both baselines."""
    titles = ("median/s", "min", "max", "of bare", "of usual", "CPU ms", "bare/CPU")
    lines = ["", f"{'':<24}" + "".join(f"{title:>10}" for title in titles)]
    for variant, one in seen.items():
        of_bare, of_usual = (
            median(rate / base for rate, base in zip(one.rates, seen[baseline].rates, strict=True))
            for baseline in (BARE, USUAL)
        )
        cpu_ratio = median(base / cpu for cpu, base in zip(one.cpu_ms, seen[BARE].cpu_ms, strict=True))
        lines.append(
            f"{variant:<24}{median(one.rates):>10.0f}{min(one.rates):>10.0f}{max(one.rates):>10.0f}"
            f"{of_bare:>10.2f}{of_usual:>10.2f}{median(one.cpu_ms):>10.2f}{cpu_ratio:>10.2f}"
        )
    return "\n".join(lines)


def _cpu_s(service: Service) -> float:
    """Computing time of all servers so far, in seconds."""
    total_s = 0.0
    for process in service.processes():
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total_s += times.user + times.system
    return total_s


def _closed_loop(port: int, requests: list[bytes], seconds: float) -> tuple[float, set[int]]:
    return closed_loop(port, requests, clients=CLIENTS, seconds=seconds)


if __name__ == "__main__":
    sys.exit(main())
