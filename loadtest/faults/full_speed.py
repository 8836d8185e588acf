"""How fast issuing is without Redis, compared with how fast it was with it."""

from __future__ import annotations

import time
from dataclasses import replace
from multiprocessing.pool import AsyncResult, Pool
from statistics import median

from loadtest.driver.background import sending_process
from loadtest.driver.generator import closed_loop
from loadtest.driver.http_client import request_bytes
from loadtest.faults import on_redis
from loadtest.faults.fault import WITHOUT_REDIS, Fault, Stage
from loadtest.faults.host_load import HostLoad
from loadtest.faults.verdict import Verdict
from loadtest.testbed.service import running_service

CLIENTS = 32
# Several rounds, because a machine's own speed changes within seconds.
ROUNDS = 3
SECONDS = 1.5
# The moment of the fault lies within a turn of its own.
MOMENT_S, MOMENT_AT_S = 1.5, 0.5
# More than a turn can use at any rate that was seen.
USERS_PER_TURN = 5_000
# Issuing continues within 15 % of before.
LEAST = 0.85


def run(fault: Fault) -> Verdict:
    """Measure the rate before and during the fault, round after round."""
    host_load = HostLoad()
    rounds: list[tuple[float, float]] = []
    statuses: set[int] = set()
    # No limit refuses: what is measured is how fast they count.
    with running_service(COUPON_LIMIT_GLOBAL="100000000/minute") as service:
        stage = Stage(service, service.start_web(), service.new_coupon(10 * ROUNDS * USERS_PER_TURN))
        with sending_process(closed_loop) as process, host_load.measuring():
            _begin(process, stage, "first", SECONDS).get()  # connections, caches, code
            for number in range(ROUNDS):
                before, _, seen_before = _begin(process, stage, f"before-{number}", SECONDS).get()
                moment = _begin(process, stage, f"moment-{number}", MOMENT_S)
                time.sleep(MOMENT_AT_S)
                with fault.happens(stage):
                    _, _, seen_at_moment = moment.get()
                    during, _, seen_during = _begin(process, stage, f"during-{number}", SECONDS).get()
                rounds.append((before, during))
                statuses |= seen_before | seen_at_moment | seen_during
                stage.broken += fault.afterwards(stage)
    share = median(during / before for before, during in rounds)
    broken = [*stage.broken, *([f"responses were {sorted(statuses)}"] if statuses != {201} else [])]
    broken += [f"only {share:.0%} of the rate before"] if share < LEAST else []
    seen = f"{share:.0%}: " + ", ".join(f"{before:.0f} → {during:.0f}/s" for before, during in rounds)
    return Verdict(fault.name, fault.promises.in_words, seen, f"{LEAST:.0%}", broken, host_load.waited_ms)


def _begin(process: Pool, stage: Stage, name: str, seconds: float) -> AsyncResult[tuple[float, float, set[int]]]:
    path = f"/api/v1/coupons/{stage.coupon_id}/issue"
    users = (f"user-{name}-{number}" for number in range(USERS_PER_TURN))
    requests = [request_bytes("POST", path, stage.service.token(user)) for user in users]
    return process.apply_async(closed_loop, (stage.port, requests), {"clients": CLIENTS, "seconds": seconds})


PROMISES = replace(WITHOUT_REDIS, in_words="no 5xx; within 15 % of before")
FAULTS = (
    Fault("Redis killed, at full speed", on_redis.killed, PROMISES, afterwards=on_redis.is_used_again),
    Fault("Redis frozen, at full speed", on_redis.frozen, PROMISES, afterwards=on_redis.is_used_again),
)
