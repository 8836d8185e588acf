"""A failing channel is paused, recovers and delays no other; a channel keeps its rate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from redis import Redis

from couponapp.guards.circuit_breaker import Rules
from couponapp.notifying import dead_letters, jobs
from couponapp.notifying.channels.webhook.channel import WebhookChannel
from couponapp.notifying.jobs import Policy
from couponapp.notifying.relay import DELIVERIES_PER_JOB, MAX_QUEUED_JOBS, Relay
from couponapp.notifying.throttle import CATCH_UP_S, Throttle
from couponapp.storage.pool import Pool
from loadtest.testbed.http_receiver import answers
from tests.support.notifying import MAKE_ALL_DUE, ScriptedChannel, count, delivery_rows, issue_to, run_jobs, temporary
from tests.support.receiver import SECRET, Receiver, running_receiver

NewCoupon = Callable[..., int]
# Opens after four failures and recovers quickly.
QUICK = Rules(window=8, min_calls=4, failure_rate=50.0, open_s=0.2, half_open_calls=1)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with running_receiver() as receiver:
        yield receiver


@pytest.fixture
def sender(pool: Pool, receiver: Receiver) -> jobs.ChannelSender:
    channel = WebhookChannel(receiver.url, [SECRET], timeout_s=5.0, private=True)
    return jobs.ChannelSender(pool, channel, policy=Policy(concurrency=1), rules=QUICK)


@pytest.fixture
def relay(pool: Pool, redis: Redis) -> Relay:
    return Relay(pool, redis, lease_s=60, channels=("webhook",))


def crowd(pool: Pool, new_coupon: NewCoupon, size: int = 20) -> None:
    issue_to(pool, new_coupon(total=size), *(f"user-{number}" for number in range(size)))


def test_a_channel_that_keeps_failing_is_paused_and_no_try_is_lost(
    pool: Pool, new_coupon: NewCoupon, relay: Relay, redis: Redis, receiver: Receiver, sender: jobs.ChannelSender
) -> None:
    crowd(pool, new_coupon)
    receiver.always = answers(500)
    relay.hand_over()
    run_jobs(sender, redis)
    assert len(receiver.requests) == 4
    tried = sorted(row["tries"] for row in delivery_rows(pool))
    assert tried == [0] * 16 + [1] * 4
    # Recovered: one trial call closes the circuit, and everything is sent.
    receiver.always = None
    time.sleep(QUICK.open_s)
    for _ in range(3):
        pool.execute(MAKE_ALL_DUE)
        relay.hand_over()
        run_jobs(sender, redis)
    assert len(receiver.accepted) == 20


def test_without_the_breaker_every_notification_of_a_failing_channel_is_tried(
    pool: Pool, new_coupon: NewCoupon, relay: Relay, redis: Redis, receiver: Receiver, sender: jobs.ChannelSender
) -> None:
    # The negative control of the test above.
    sender.breaker.rules = Rules(min_calls=1_000, window=1_000)
    sender.breaker.close()
    crowd(pool, new_coupon)
    receiver.always = answers(500)
    relay.hand_over()
    run_jobs(sender, redis)
    assert len(receiver.requests) == 20


@pytest.mark.parametrize("status", [410, 422])
def test_permanent_refusals_do_not_open_the_circuit(
    pool: Pool, new_coupon: NewCoupon, relay: Relay, redis: Redis, receiver: Receiver, sender: jobs.ChannelSender,
    status: int,
) -> None:  # fmt: skip
    crowd(pool, new_coupon)
    receiver.always = answers(status)
    relay.hand_over()
    run_jobs(sender, redis)
    assert len(receiver.requests) == 20
    assert {letter["reason"] for letter in dead_letters.oldest(pool, limit=100)} == {f"answered {status} (permanent)"}


def test_a_receiver_that_sends_retry_after_gets_no_request_until_then(
    pool: Pool, new_coupon: NewCoupon, relay: Relay, redis: Redis, receiver: Receiver, sender: jobs.ChannelSender
) -> None:
    crowd(pool, new_coupon)
    receiver.always = answers(429, Retry_After="30")
    relay.hand_over()
    run_jobs(sender, redis)
    assert len(receiver.requests) == 1
    rows = delivery_rows(pool)
    assert sorted(row["tries"] for row in rows) == [0] * 19 + [1]
    assert all(10.0 < row["due_in_s"] <= 37.0 for row in rows)


def test_a_stuck_channel_delays_no_other(pool: Pool, new_coupon: NewCoupon, redis: Redis) -> None:
    healthy = ScriptedChannel("healthy")
    size = 2 * MAX_QUEUED_JOBS * DELIVERIES_PER_JOB
    crowd(pool, new_coupon, size)
    relay = Relay(pool, redis, lease_s=60, channels=("healthy", "stuck"))
    while relay.hand_over():  # no worker runs the jobs of the stuck channel: its queue stays full
        run_jobs(jobs.ChannelSender(pool, healthy), redis)
    assert len(healthy.sent) == size
    assert count(pool, "channel = 'stuck' AND sent_at IS NULL") == size
    assert redis.llen(f"rq:queue:{jobs.queue_name('stuck')}") == MAX_QUEUED_JOBS


def test_a_job_releases_what_it_cannot_start_in_its_time(pool: Pool, new_coupon: NewCoupon, redis: Redis) -> None:
    channel = ScriptedChannel()
    crowd(pool, new_coupon, 10)
    Relay(pool, redis, lease_s=60).hand_over()
    now_s = [0.0]
    slow = jobs.ChannelSender(pool, channel, policy=Policy(concurrency=1), clock=lambda: now_s[0])

    def takes_two_seconds() -> None:
        now_s[0] += 2.0

    channel.before = takes_two_seconds
    run_jobs(slow, redis)
    assert len(channel.sent) == 3  # at 0, 2 and 4 s: the fourth would start after 5 s
    assert count(pool, "sent_at IS NULL AND tries = 0 AND due_at <= now()") == 7


def test_a_channel_keeps_its_rate(
    pool: Pool, new_coupon: NewCoupon, relay: Relay, redis: Redis, receiver: Receiver
) -> None:
    crowd(pool, new_coupon, 10)
    relay.hand_over()
    channel = WebhookChannel(receiver.url, [SECRET], timeout_s=5.0, private=True)
    began_s = time.monotonic()
    run_jobs(jobs.ChannelSender(pool, channel, throttle=Throttle("20/second")), redis)
    assert len(receiver.accepted) == 10
    assert time.monotonic() - began_s >= 9 / 20 - CATCH_UP_S


def test_a_job_of_a_slow_channel_takes_no_more_than_it_can_send_in_its_time(
    pool: Pool, new_coupon: NewCoupon, redis: Redis
) -> None:
    crowd(pool, new_coupon, 50)
    throttles = {"slow": Throttle("2/second"), "slower": Throttle("1/minute")}
    relay = Relay(pool, redis, lease_s=60, channels=("free", "slow", "slower"), throttles=throttles)
    assert relay.hand_over() == 50 + MAX_QUEUED_JOBS * 10 + MAX_QUEUED_JOBS


def test_a_circuit_opens_for_its_own_channel_only(pool: Pool, new_coupon: NewCoupon, redis: Redis) -> None:
    good, bad = ScriptedChannel("good"), ScriptedChannel("bad")
    crowd(pool, new_coupon)
    for number in range(20):
        bad.fail(f"user-{number}", *temporary())
    Relay(pool, redis, lease_s=60, channels=("bad", "good")).hand_over()
    for channel in (bad, good):
        run_jobs(jobs.ChannelSender(pool, channel, policy=Policy(concurrency=1), rules=QUICK), redis)
    assert (len(bad.calls), len(good.sent)) == (4, 20)
