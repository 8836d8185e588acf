"""How fast issuing is without Redis, against how fast it was with it."""

from __future__ import annotations

import multiprocessing
import multiprocessing.pool
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from statistics import median

from loadtest.driver.generator import closed_loop
from loadtest.driver.http_client import request_bytes
from loadtest.faults import on_redis
from loadtest.faults.fault import Stage
from loadtest.faults.host_load import HostLoad
from loadtest.faults.verdict import Verdict
from loadtest.testbed.service import running_service

CLIENTS = 32
# Several rounds, because a machine's own speed goes up and down within seconds.
ROUNDS = 3
SECONDS = 1.5
# The instant itself lies in a run of its own, some way in.
INSTANT_S, INSTANT_AT_S = 1.5, 0.5
# More than such a run can use up at any rate that was seen.
USERS_PER_RUN = 5_000
# Issuing goes on within 15 % of before.
LEAST = 0.85


@dataclass(frozen=True)
class FullSpeed:
    """A fault under as many attempts as 32 clients can make."""

    name: str
    happens: Callable[[Stage], AbstractContextManager[None]]
    expected: str = "no 5xx; within 15 % of before"


def run(fault: FullSpeed) -> Verdict:
    """Measure before and meanwhile, round after round."""
    machine = HostLoad()
    rounds: list[_Round] = []
    # No limit refuses: what is measured is how fast they count.
    with running_service(COUPON_LIMIT_GLOBAL="100000000/minute") as service:
        stage = Stage(service, service.start_web(), service.new_coupon(10 * ROUNDS * USERS_PER_RUN))
        with multiprocessing.get_context("spawn").Pool(1) as pool, machine.measuring():
            _begin(pool, stage, "first", SECONDS).get()  # connections, caches, code
            for number in range(ROUNDS):
                rounds.append(_measure(fault, pool, stage, number))
                stage.broken += on_redis.is_used_again(stage)
    statuses = set().union(*(one.statuses for one in rounds))
    share = median(one.meanwhile / one.before for one in rounds)
    broken = [*stage.broken, *([f"answers were {sorted(statuses)}"] if statuses != {201} else [])]
    broken += [f"only {share:.0%} of the rate before"] if share < LEAST else []
    told = f"{share:.0%}: " + ", ".join(f"{one.before:.0f} → {one.meanwhile:.0f}/s" for one in rounds)
    return Verdict(fault.name, fault.expected, told, f"{LEAST:.0%}", broken, machine.waited_ms)


@dataclass(frozen=True)
class _Round:
    """Attempts per second, and the statuses seen."""

    before: float
    meanwhile: float
    statuses: set[int]


def _measure(fault: FullSpeed, pool: multiprocessing.pool.Pool, stage: Stage, number: int) -> _Round:
    before, statuses = _begin(pool, stage, f"before-{number}", SECONDS).get()
    instant = _begin(pool, stage, f"instant-{number}", INSTANT_S)
    time.sleep(INSTANT_AT_S)
    with fault.happens(stage):
        statuses |= instant.get()[1]
        meanwhile, later = _begin(pool, stage, f"meanwhile-{number}", SECONDS).get()
    return _Round(before, meanwhile, statuses | later)


def _begin(
    pool: multiprocessing.pool.Pool, stage: Stage, name: str, seconds: float
) -> multiprocessing.pool.AsyncResult[tuple[float, set[int]]]:
    path = f"/api/v1/coupons/{stage.coupon_id}/issue"
    tokens = (stage.service.token(f"user-{name}-{number}") for number in range(USERS_PER_RUN))
    return pool.apply_async(_attempts, (stage.port, [request_bytes("POST", path, token) for token in tokens], seconds))


def _attempts(port: int, requests: list[bytes], seconds: float) -> tuple[float, set[int]]:
    return closed_loop(port, requests, clients=CLIENTS, seconds=seconds)


FAULTS = (
    FullSpeed("Redis killed, at full speed", on_redis.killed),
    FullSpeed("Redis frozen, at full speed", on_redis.frozen),
)
