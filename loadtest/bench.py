"""`make bench`: ours against a bare route and against the usual way, in turn, in one run, as ratios."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Sequence
from statistics import median

from couponapp.issuing.issue import issue
from loadtest.client import request_bytes
from loadtest.generator import closed_loop
from loadtest.service import Service, running_service

ROUNDS = 5
SECONDS = 3.0
CLIENTS = 32
# More than one round can use up at any rate that this was seen to reach.
USERS_PER_ROUND = 12_000
BARE, USUAL, ISSUED, SOLD_OUT = "bare route", "FOR UPDATE + 3 limits", "ours: issued", "ours: sold out"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns 0."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds of each (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="length of each (default %(default)s)")
    given = parser.parse_args(arguments)
    if not 1 <= given.rounds <= 50 or not 0.5 <= given.seconds <= 60:
        parser.error("1 to 50 rounds of 0.5 to 60 seconds")
    with running_service(COUPON_LIMIT_GLOBAL="100000000/minute", COUPON_DEADLINE_MS="5000") as service:
        rates = measure(service, rounds=given.rounds, seconds=given.seconds)
    print(table(rates))
    return 0


def measure(service: Service, *, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Answers per second, per variant and round; the variants take turns within each round."""
    ours = service.start_web()
    bare = service.start_web("loadtest.baselines.bare:app")
    usual = service.start_web("loadtest.baselines.for_update:app")
    sold_out = service.new_coupon(1)
    issue(service.pool, sold_out, "the one who got it")
    rates: dict[str, list[float]] = {BARE: [], ISSUED: [], SOLD_OUT: [], USUAL: []}
    for number in range(rounds):
        # New users on a new coupon each time: nobody is told ALREADY_ISSUED.
        users = [service.token(f"user-{number}-{user}") for user in range(USERS_PER_ROUND)]
        first, second = (service.new_coupon(USERS_PER_ROUND) for _ in range(2))
        for variant, port, coupon_id, status in (
            (BARE, bare, first, 200),
            (ISSUED, ours, first, 201),
            (SOLD_OUT, ours, sold_out, 409),
            (USUAL, usual, second, 201),
        ):
            requests = [request_bytes("POST", f"/api/v1/coupons/{coupon_id}/issue", token) for token in users]
            rate, statuses = _from_another_process(port, requests, seconds)
            if statuses != {status}:
                raise RuntimeError(f"{variant}: answers were {statuses}, not {status} only")
            rates[variant].append(rate)
        print(
            f"round {number + 1} of {rounds}: " + ", ".join(f"{v} {r[-1]:.0f}/s" for v, r in rates.items()), flush=True
        )
    return rates


def table(rates: dict[str, list[float]]) -> str:
    """Medians, and ratios round by round against both baselines."""
    lines = ["", f"{'':<24}{'median/s':>10}{'min':>8}{'max':>8}{'of bare':>10}{'of usual':>10}"]
    for variant, seen in rates.items():
        ratios = [
            median(rate / base for rate, base in zip(seen, rates[baseline], strict=True)) for baseline in (BARE, USUAL)
        ]
        lines.append(
            f"{variant:<24}{median(seen):>10.0f}{min(seen):>8.0f}{max(seen):>8.0f}{ratios[0]:>10.2f}{ratios[1]:>10.2f}"
        )
    return "\n".join(lines)


def _from_another_process(port: int, requests: list[bytes], seconds: float) -> tuple[float, set[int]]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_closed_loop, (port, requests, seconds))


def _closed_loop(port: int, requests: list[bytes], seconds: float) -> tuple[float, set[int]]:
    return closed_loop(port, requests, clients=CLIENTS, seconds=seconds)


if __name__ == "__main__":
    sys.exit(main())
