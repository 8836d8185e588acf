"""Processes are killed and Redis forgets, again and again: every message arrives, and counts once.

`COUPON_TEST_CHAOS_S=60` makes the chaos as long as the promise says, with a thousand issuances.
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
def test_a_process_that_is_killed_at_any_step_loses_nothing(
    stage: OpenStage, new_coupon: NewCoupon, channel: str
) -> None:
    on = stage(channel)
    coupon_id, told = new_coupon(total=10_000), issue_to(on.pool, new_coupon(), "first")
    on.wait_until_told(told)

    def issue_some(step: str) -> None:
        told.extend(issue_to(on.pool, coupon_id, *(f"{step}-{number}" for number in range(30))))

    # A job that nobody can read, and one that is gone, lie before the others.
    redis = on.redis.client()
    redis.hset("rq:job:poison", mapping={"data": b"\x80nonsense", "created_at": "never", "status": "queued"})
    redis.rpush(on.queue, "poison", "no-such-job")
    issue_some("poison")
    on.wait_until_told(told)

    # The channel's process, before the other end has accepted.
    on.end.before = once(on, lambda: on.worker.kill(channel))
    issue_some("before")
    on.wait_until_told(told)

    # The same, when the other end has accepted and nobody has noted it.
    on.end.after = once(on, lambda: on.worker.kill(channel))
    issue_some("after")
    on.wait_until_told(told)
    assert max(on.end.accepted.values()) > 1  # it came twice, under the same key

    # The supervisor with everything, in the middle of a message.
    on.end.before = once(on, on.worker.kill_all)
    issue_some("everything")
    on.wait_until_told(told)

    # The relay, when it has leased and Redis does not take the jobs.
    with frozen(on.redis.process):
        issue_some("relay")
        assert wait_until(lambda: on.worker.kill("relay"), timeout_s=20, what="the relay is there to be killed")
    on.wait_until_told(told)

    # Redis forgets what is queued, and then everything.
    with frozen(on.channel_part()):
        issue_some("flushed")
        wait_until(lambda: on.redis.client().llen(on.queue), timeout_s=20, what="jobs are queued")
        on.redis.client().flushall()
    issue_some("restarted")
    on.redis.restart()
    on.wait_until_told(told)
    assert len(on.end.accepted) == len(told)
    assert verify(on.pool, coupon_id).coupons[0]["waiting"] == 0
    assert count(on.pool, "dead_at IS NOT NULL") == 0


def once(on: Stage, act: Callable[[], object]) -> Callable[[str], None]:
    """At the next message that comes in, and at none after it."""

    def at_a_message(_: str) -> None:
        on.end.before = on.end.after = lambda key: None
        act()

    return at_a_message


def chaos(on: Stage, coupon_id: int, seconds: float, issuances: int, seed: int) -> list[int]:
    """Issue while everything is killed; returns the issuances once nobody is killed any more."""
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
    told: list[int] = []
    on.channel_part()
    end_s = time.monotonic() + seconds
    round_s = 0.4
    rounds = int(seconds / round_s)
    for number in range(rounds):
        size = issuances * (number + 1) // rounds - len(told)
        told += issue_to(on.pool, coupon_id, *(f"user-{number}-{n}" for n in range(size)))
        if number == rounds // 2:
            _lose_the_queue(on)
        else:
            dice.choice(acts)()
        time.sleep(max(0.0, min(round_s, end_s - time.monotonic())))
    released.set()
    on.receiver.next.clear()
    return told


def _lose_the_queue(on: Stage) -> None:
    """Sure to lose something: jobs are queued, their worker is gone, and Redis forgets them."""
    part = on.channel_part()
    with frozen(part):
        wait_until(lambda: on.redis.client().llen(on.queue), timeout_s=20, what="jobs are queued")
        on.redis.client().flushall()
        part.kill()


@pytest.mark.timeout(CHAOS_S + HEAL_S + 120)
def test_after_any_number_of_random_kills_every_issuance_is_told_and_counts_once(
    stage: OpenStage, new_coupon: NewCoupon
) -> None:
    on = stage()
    seed = random.randrange(1_000_000)
    print(f"seed {seed}")  # noqa: T201  # shown when the test fails
    told = chaos(on, new_coupon(total=ISSUANCES), CHAOS_S, ISSUANCES, seed)
    on.wait_until_told(told)
    assert len(on.receiver.accepted) == len(told) == ISSUANCES
    assert count(on.pool, "dead_at IS NOT NULL") == 0
    assert verify(on.pool).clean


@pytest.mark.timeout(180)
def test_without_leases_that_run_out_the_same_kills_lose_messages(stage: OpenStage, new_coupon: NewCoupon) -> None:
    # The negative control of the test above.
    on = stage(lease_s=3_600)
    told = chaos(on, new_coupon(total=100), 2.0, 60, seed=4)
    wait_until(
        lambda: not count(on.pool, "sent_at IS NULL AND due_at <= now()"), timeout_s=HEAL_S, what="all is leased"
    )
    wait_until(lambda: not on.redis.client().llen(on.queue), timeout_s=HEAL_S, what="all jobs are taken")
    on.channel_part()
    assert on.missing(told)
    # Not even the most patient shop would hear of them within the hour.
    assert count(on.pool, "sent_at IS NULL AND due_at > now() + interval '50 minutes'")
