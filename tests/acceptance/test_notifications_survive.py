"""Processes are killed and Redis loses its data, again and again: every notification arrives and counts once.

`COUPON_TEST_CHAOS_S=60` runs the chaos for the promised minute, with a thousand issuances.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from couponapp.operating.verify import verify
from couponapp.storage.pool import Pool
from loadtest.testbed.http_receiver import answers, closes_after
from tests.support.notification_stage import HEAL_S, Stage, frozen
from tests.support.notifying import count, issue_to
from tests.support.receiver import hang
from tests.support.servers import wait_until

NewCoupon = Callable[..., int]
CHAOS_S = float(os.environ.get("COUPON_TEST_CHAOS_S", "4"))
ISSUANCES = 1_000 if CHAOS_S >= 60 else 150
LEASE_S = 2


OpenStage = Callable[..., Stage]


@pytest.fixture
def stage(tmp_path: Path, database_url: str, pool: Pool) -> Iterator[OpenStage]:
    with ExitStack() as stack:
        yield lambda channel="webhook", lease_s=LEASE_S: Stage(
            stack, tmp_path, database_url, pool, channel=channel, lease_s=lease_s
        )


@pytest.mark.parametrize("channel", ["webhook", "email"])
def test_killing_a_process_at_any_step_loses_nothing(stage: OpenStage, new_coupon: NewCoupon, channel: str) -> None:
    on = stage(channel)
    coupon_id, issuances = new_coupon(total=10_000), issue_to(on.pool, new_coupon(), "first")
    on.wait_until_delivered(issuances)

    def issue_some(step: str) -> None:
        issuances.extend(issue_to(on.pool, coupon_id, *(f"{step}-{number}" for number in range(30))))

    # An unreadable job and a missing one are queued before the others.
    redis = on.redis.client()
    redis.hset("rq:job:poison", mapping={"data": b"\x80nonsense", "created_at": "never", "status": "queued"})
    redis.rpush(on.queue, "poison", "no-such-job")
    issue_some("poison")
    on.wait_until_delivered(issuances)

    # The channel's process is killed before the receiver has accepted.
    on.end.before = once(on, lambda: on.worker.kill(channel))
    issue_some("before")
    on.wait_until_delivered(issuances)

    # It is killed after the receiver has accepted and before that is recorded.
    on.end.after = once(on, lambda: on.worker.kill(channel))
    issue_some("after")
    on.wait_until_delivered(issuances)
    assert max(on.end.accepted.values()) > 1  # it arrived twice, with the same key

    # The supervisor and all parts are killed during a send.
    on.end.before = once(on, on.worker.kill_all)
    issue_some("everything")
    on.wait_until_delivered(issuances)

    # The relay is killed after it has leased, while Redis does not take the jobs.
    with frozen(on.redis.process):
        issue_some("relay")
        assert wait_until(lambda: on.worker.kill("relay"), timeout_s=20, what="the relay is there to be killed")
    on.wait_until_delivered(issuances)

    # Redis loses the queue, and then everything.
    with frozen(on.channel_part()):
        issue_some("flushed")
        wait_until(lambda: on.redis.client().llen(on.queue), timeout_s=20, what="jobs are queued")
        on.redis.client().flushall()
    issue_some("restarted")
    on.redis.restart()
    on.wait_until_delivered(issuances)
    assert len(on.end.accepted) == len(issuances)
    assert verify(on.pool, coupon_id).coupons[0]["waiting"] == 0
    assert count(on.pool, "dead_at IS NOT NULL") == 0


def once(on: Stage, act: Callable[[], object]) -> Callable[[str], None]:
    """Act at the next notification that arrives, and only then."""

    def act_once(_: str) -> None:
        on.end.before = on.end.after = lambda key: None
        act()

    return act_once


def chaos(on: Stage, coupon_id: int, seconds: float, issuances: int, seed: int) -> list[int]:
    """Issue while processes are killed at random; return the issuances."""
    dice, released = random.Random(seed), threading.Event()
    misbehaviours = [answers(500), answers(429, Retry_After="1"), closes_after(b"HTTP/1.1 2"), hang(released)]
    acts: list[Callable[[], object]] = [
        lambda: on.worker.kill("relay"),
        lambda: on.worker.kill("webhook"),
        lambda: on.worker.kill("webhook"),
        on.worker.kill_all,
        lambda: on.redis.client().flushall(),
        on.redis.restart,
        lambda: on.receiver.next.append(dice.choice(misbehaviours)),
    ]
    issued: list[int] = []
    on.channel_part()
    end_s = time.monotonic() + seconds
    round_s = 0.4
    rounds = int(seconds / round_s)
    for number in range(rounds):
        size = issuances * (number + 1) // rounds - len(issued)
        issued += issue_to(on.pool, coupon_id, *(f"user-{number}-{n}" for n in range(size)))
        if number == rounds // 2:
            _lose_the_queue(on)
        else:
            dice.choice(acts)()
        time.sleep(max(0.0, min(round_s, end_s - time.monotonic())))
    released.set()
    on.receiver.next.clear()
    return issued


def _lose_the_queue(on: Stage) -> None:
    """Lose notifications for certain: jobs are queued, Redis loses them, and their worker is killed."""
    part = on.channel_part()
    with frozen(part):
        wait_until(lambda: on.redis.client().llen(on.queue), timeout_s=20, what="jobs are queued")
        on.redis.client().flushall()
        part.kill()


@pytest.mark.generated
@pytest.mark.timeout(CHAOS_S + HEAL_S + 120)
def test_after_random_kills_every_issuance_is_delivered_and_counts_once(
    stage: OpenStage, new_coupon: NewCoupon
) -> None:
    on = stage()
    seed = random.randrange(1_000_000)
    print(f"seed {seed}")  # noqa: T201  # shown when the test fails
    issuances = chaos(on, new_coupon(total=ISSUANCES), CHAOS_S, ISSUANCES, seed)
    on.wait_until_delivered(issuances)
    assert len(on.receiver.accepted) == len(issuances) == ISSUANCES
    assert count(on.pool, "dead_at IS NOT NULL") == 0
    assert verify(on.pool).clean


@pytest.mark.timeout(180)
def test_without_expiring_leases_the_same_kills_lose_notifications(stage: OpenStage, new_coupon: NewCoupon) -> None:
    # The negative control of the test above.
    on = stage(lease_s=3_600)
    issuances = chaos(on, new_coupon(total=100), 2.0, 60, seed=4)
    wait_until(
        lambda: not count(on.pool, "sent_at IS NULL AND due_at <= now()"), timeout_s=HEAL_S, what="everything is leased"
    )
    wait_until(lambda: not on.redis.client().llen(on.queue), timeout_s=HEAL_S, what="all jobs are taken")
    on.channel_part()
    assert on.missing(issuances)
    # The lost ones stay leased for most of an hour.
    assert count(on.pool, "sent_at IS NULL AND due_at > now() + interval '50 minutes'")
