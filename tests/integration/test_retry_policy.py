"""What follows each result of a try: sent, retried or dead, independently on each channel."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis import Redis

from couponapp.errors import ChannelFailed, Unavailable
from couponapp.notifying import dead_letters, deliveries, jobs, outbox
from couponapp.notifying.jobs import CLAIM_BATCH, Policy
from couponapp.notifying.relay import DELIVERIES_PER_JOB, Relay
from couponapp.notifying.retry_policy import MAX_CRASHES, MAX_DELAY_S
from couponapp.operating.verify import verify
from couponapp.storage.pool import Pool
from tests.support.notifying import MAKE_ALL_DUE, ScriptedChannel, count, delivery_rows, issue_to, run_jobs, temporary
from tests.support.postgres_proxy import PostgresProxy
from tests.support.servers import wait_until

NewCoupon = Callable[..., int]
DAY_S = 86_400.0


@pytest.fixture
def channel() -> ScriptedChannel:
    return ScriptedChannel()


@pytest.fixture
def step(pool: Pool, redis: Redis, channel: ScriptedChannel) -> Callable[..., None]:
    """Run the relay and its jobs once."""

    def run(**policy: int) -> None:
        Relay(pool, redis, lease_s=60).hand_over()
        run_jobs(jobs.ChannelSender(pool, channel, policy=Policy(**policy)), redis)

    return run


# Failures


def test_a_failed_delivery_is_retried_after_growing_and_jittered_delays(
    pool: Pool, new_coupon: NewCoupon, channel: ScriptedChannel, step: Callable[..., None]
) -> None:
    users = [f"user-{number}" for number in range(10)]
    issue_to(pool, new_coupon(), *users)
    for user in users:
        channel.fail(user, *temporary(3))
    for expected_s in (2.0, 4.0, 8.0):
        step()
        delays_s = [row["due_in_s"] for row in delivery_rows(pool)]
        assert len(set(delays_s)) == len(users)
        assert all(0.4 * expected_s < delay_s <= expected_s for delay_s in delays_s), delays_s
        pool.execute(MAKE_ALL_DUE)
    step()
    assert channel.sent == dict.fromkeys(users, 1)
    assert [(row["tries"], row["failures"], row["reason"]) for row in delivery_rows(pool)] == [(4, 3, None)] * 10


def test_delays_are_capped(
    pool: Pool, new_coupon: NewCoupon, channel: ScriptedChannel, step: Callable[..., None]
) -> None:
    issue_to(pool, new_coupon(), "kim")
    channel.fail("kim", ChannelFailed("come back next year", retry_after_s=3e7))
    step()
    pool.execute("UPDATE deliveries SET failures = 900, tries = 900")
    pool.execute(MAKE_ALL_DUE)
    channel.fail("kim", *temporary())
    step(tries=1000)
    assert delivery_rows(pool)[0]["due_in_s"] <= MAX_DELAY_S


def test_a_delivery_is_not_tried_before_its_delay_is_over(
    pool: Pool, new_coupon: NewCoupon, channel: ScriptedChannel, step: Callable[..., None]
) -> None:
    issue_to(pool, new_coupon(), "kim")
    channel.fail("kim", ChannelFailed("not now", retry_after_s=30.0))
    step()
    step()
    assert channel.calls == ["kim"]
    (row,) = delivery_rows(pool)
    assert 10.0 < row["due_in_s"] <= 30.0


def test_a_permanent_failure_makes_a_dead_letter_at_once(
    pool: Pool, new_coupon: NewCoupon, channel: ScriptedChannel, step: Callable[..., None]
) -> None:
    issue_to(pool, new_coupon(), "kim", "lee")
    channel.fail("kim", ChannelFailed("no such address", permanent=True))
    step()
    (letter,) = dead_letters.oldest(pool, limit=10)
    assert (letter["user_id"], letter["reason"]) == ("kim", "no such address (permanent)")
    assert channel.sent == {"lee": 1}


def test_a_delivery_without_tries_left_is_a_dead_letter(
    pool: Pool, new_coupon: NewCoupon, channel: ScriptedChannel, step: Callable[..., None]
) -> None:
    issue_to(pool, new_coupon(), "kim")
    channel.fail("kim", *temporary(9))
    for dead in (0, 0, 1, 1):
        step(tries=3)
        pool.execute(MAKE_ALL_DUE)
        assert count(pool, "dead_at IS NOT NULL") == dead
    assert channel.calls == ["kim"] * 3
    assert dead_letters.oldest(pool, limit=10)[0]["reason"] == "not now (3 tries)"


def test_a_delivery_past_its_time_limit_gets_one_more_try_before_it_is_a_dead_letter(
    pool: Pool, new_coupon: NewCoupon, channel: ScriptedChannel, step: Callable[..., None]
) -> None:
    issue_to(pool, new_coupon(), "kim", "lee")
    for user in ("kim", "lee"):
        channel.fail(user, *temporary())
    step()
    pool.execute("UPDATE deliveries SET give_up_at = now()")
    pool.execute(MAKE_ALL_DUE)
    channel.fail("kim", *temporary())
    step()
    assert [letter["reason"] for letter in dead_letters.oldest(pool, limit=10)] == ["not now (its time is over)"]
    assert channel.sent == {"lee": 1}


def test_a_bug_in_a_channel_is_a_failure_like_any_other(
    pool: Pool, new_coupon: NewCoupon, channel: ScriptedChannel, step: Callable[..., None]
) -> None:
    issue_to(pool, new_coupon(), "kim", "lee")
    channel.fail("kim", ZeroDivisionError("oops"))
    step()
    assert channel.sent == {"lee": 1}
    assert [row["reason"] for row in delivery_rows(pool)] == ["ZeroDivisionError('oops')", None]


# Crashes


def crashed(pool: Pool, times: int) -> None:
    """Make it look as if this many processes had been killed while sending the notification of «kim»."""
    sql = """UPDATE deliveries SET tries = tries + %s WHERE outbox_id =
             (SELECT o.id FROM outbox o JOIN issuances i ON i.id = o.issuance_id WHERE i.user_id = 'kim')"""
    assert pool.execute(sql, [times])
    pool.execute(MAKE_ALL_DUE)


def test_a_crash_suspect_gets_a_job_of_its_own(pool: Pool, new_coupon: NewCoupon, redis: Redis) -> None:
    ids = issue_to(pool, new_coupon(), "lee", "kim", "park")
    outbox.fan_out(pool, ("file",), limit=10, give_up_s=DAY_S)
    crashed(pool, 1)
    with pool.connection() as connection, connection.transaction():
        leased = deliveries.lease(connection, "file", limit=DELIVERIES_PER_JOB, lease_s=60)
    kims = {row["issuance_id"]: row["outbox_id"] for row in delivery_rows(pool)}[ids[1]]
    assert leased.crash_suspects == [kims]
    assert len(leased.outbox_ids) == 2


def test_a_delivery_that_crashed_too_many_processes_is_a_dead_letter(
    pool: Pool, new_coupon: NewCoupon, channel: ScriptedChannel, step: Callable[..., None]
) -> None:
    issue_to(pool, new_coupon(), "kim")
    channel.fail("kim", *temporary())
    step()
    crashed(pool, MAX_CRASHES)
    step()
    assert channel.calls == ["kim"]
    (letter,) = dead_letters.oldest(pool, limit=10)
    assert letter["reason"] == f"the process died {MAX_CRASHES} times while sending it"


def test_claimed_deliveries_that_were_not_tried_lose_no_try(
    pool: Pool, new_coupon: NewCoupon, channel: ScriptedChannel, redis: Redis
) -> None:
    issue_to(pool, new_coupon(), "kim", "lee", "park")
    Relay(pool, redis, lease_s=60).hand_over()
    sender = jobs.ChannelSender(pool, channel)
    sender.stop.set()
    run_jobs(sender, redis)
    assert [(row["tries"], row["due_in_s"] <= 0) for row in delivery_rows(pool)] == [(0, True)] * 3
    assert channel.calls == []


def test_a_job_releases_what_it_did_not_claim_unless_another_lease_holds_it(
    pool: Pool, new_coupon: NewCoupon, channel: ScriptedChannel, redis: Redis
) -> None:
    users = [f"user-{number}" for number in range(3 * CLAIM_BATCH)]
    issue_to(pool, new_coupon(total=1_000), *users)
    Relay(pool, redis, lease_s=60).hand_over()
    last = delivery_rows(pool)[-1]["outbox_id"]
    sender = jobs.ChannelSender(pool, channel, policy=Policy(concurrency=1))

    def meanwhile() -> None:
        """Lease the last delivery to another job, and stop this process."""
        pool.execute("UPDATE deliveries SET due_at = now() + interval '1 hour' WHERE outbox_id = %s", [last])
        sender.stop.set()

    channel.before = meanwhile
    run_jobs(sender, redis)
    assert len(channel.sent) == 1
    rows = delivery_rows(pool)
    assert [row["tries"] for row in rows] == [1] + [0] * (len(users) - 1)
    assert all(row["due_in_s"] <= 0 for row in rows[1:-1])
    assert rows[-1]["due_in_s"] > 3_000


def test_a_job_claims_only_one_batch_ahead(
    pool: Pool, new_coupon: NewCoupon, channel: ScriptedChannel, redis: Redis
) -> None:
    issue_to(pool, new_coupon(total=1_000), *(f"user-{number}" for number in range(3 * CLAIM_BATCH)))
    Relay(pool, redis, lease_s=60).hand_over()
    ahead: list[int] = []
    channel.before = lambda: ahead.append(count(pool, "tries > 0") - len(channel.calls))
    run_jobs(jobs.ChannelSender(pool, channel, policy=Policy(concurrency=1)), redis)
    assert len(ahead) == 3 * CLAIM_BATCH
    assert max(ahead) == CLAIM_BATCH


def test_a_job_whose_lease_is_nearly_over_starts_nothing(
    pool: Pool, new_coupon: NewCoupon, channel: ScriptedChannel, redis: Redis
) -> None:
    issue_to(pool, new_coupon(), "kim")
    Relay(pool, redis, lease_s=60).hand_over()
    run_jobs(jobs.ChannelSender(pool, channel, policy=Policy(timeout_s=61.0)), redis)
    assert channel.calls == []


def test_a_job_that_runs_before_its_lease_is_committed_waits_for_the_commit(
    pool: Pool, new_coupon: NewCoupon, channel: ScriptedChannel
) -> None:
    """The relay enqueues inside its transaction, so a fast worker may run the job before the commit."""
    issue_to(pool, new_coupon(), "kim")
    outbox.fan_out(pool, ("file",), limit=10, give_up_s=DAY_S)
    with ThreadPoolExecutor(1) as executor:
        with pool.connection() as connection, connection.transaction():
            (outbox_id,) = deliveries.lease(connection, "file", limit=10, lease_s=60).outbox_ids
            job = executor.submit(jobs.ChannelSender(pool, channel).deliver, [outbox_id])
            blocked = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            wait_until(lambda: pool.fetch_all(blocked) or job.done(), timeout_s=20, what="the job waits")
            assert not job.done()
        job.result(20)
    assert channel.sent == {"kim": 1}


def test_a_job_that_loses_postgresql_ends_and_nothing_is_lost(
    pool: Pool, new_coupon: NewCoupon, channel: ScriptedChannel, redis: Redis,
    make_pool: Callable[..., Pool], relay: PostgresProxy, database_url: str,
) -> None:  # fmt: skip
    users = [f"user-{number}" for number in range(3 * CLAIM_BATCH)]
    issue_to(pool, new_coupon(total=1_000), *users)
    Relay(pool, redis, lease_s=60).hand_over()
    ids = [row["outbox_id"] for row in delivery_rows(pool)]
    sender = jobs.ChannelSender(make_pool(relay.url, deadline_ms=2_000), channel)

    def lose_postgresql_at_the_next_claim() -> None:
        relay.loses = lambda: len(channel.calls) >= CLAIM_BATCH - 1

    channel.before = lose_postgresql_at_the_next_claim
    with pytest.raises(Unavailable):
        sender.deliver(ids)
    assert len(channel.sent) == CLAIM_BATCH
    channel.before, relay.loses = (lambda: None), lambda: False
    for _ in range(2):  # what was sent and not recorded are crash suspects: two rounds of jobs
        pool.execute(MAKE_ALL_DUE)
        Relay(pool, redis, lease_s=60).hand_over()
        run_jobs(jobs.ChannelSender(pool, channel), redis)
    assert set(channel.sent) == set(users)
    assert not count(pool, "sent_at IS NULL")


# Several channels


def test_channels_are_independent_and_the_last_one_marks_the_notification_as_sent(
    pool: Pool, new_coupon: NewCoupon, redis: Redis
) -> None:
    coupon_id = new_coupon()
    issue_to(pool, coupon_id, "kim")
    first, second = ScriptedChannel("file"), ScriptedChannel("other")
    second.fail("kim", *temporary())
    relay = Relay(pool, redis, lease_s=60, channels=("file", "other"))
    assert relay.hand_over() == 2
    for channel in (first, second):
        run_jobs(jobs.ChannelSender(pool, channel), redis)
    assert [(row["channel"], row["sent_at"] is None) for row in delivery_rows(pool)] == [
        ("file", False),
        ("other", True),
    ]
    assert verify(pool, coupon_id).coupons[0]["notified"] == 0
    pool.execute(MAKE_ALL_DUE)
    assert relay.hand_over() == 1
    run_jobs(jobs.ChannelSender(pool, second), redis)
    assert verify(pool, coupon_id).coupons[0]["notified"] == 1
    assert (first.sent, second.sent) == ({"kim": 1}, {"kim": 1})


def test_channels_that_finish_the_same_notifications_concurrently_lose_none(pool: Pool, new_coupon: NewCoupon) -> None:
    coupon_id, names = new_coupon(total=200), ("a", "b", "c", "d")
    issue_to(pool, coupon_id, *(f"user-{number}" for number in range(200)))
    outbox.fan_out(pool, names, limit=500, give_up_s=DAY_S)
    ids = sorted({row["outbox_id"] for row in delivery_rows(pool)})

    def finish(name: str) -> None:
        order = ids if name in "ac" else ids[::-1]
        for start in range(0, len(order), 20):
            deliveries.mark_sent(pool, name, order[start : start + 20])

    with ThreadPoolExecutor(4) as executor:
        list(executor.map(finish, names))
    assert verify(pool, coupon_id).coupons[0]["notified"] == 200


# Fairness and growth


def lease_once(pool: Pool, limit: int) -> list[int]:
    """Return the coupon ids of one lease."""
    with pool.connection() as connection, connection.transaction():
        ids = deliveries.lease(connection, "file", limit=limit, lease_s=60).outbox_ids
    rows = pool.fetch_all("SELECT coupon_id FROM deliveries WHERE outbox_id = ANY(%s)", [ids])
    return [row["coupon_id"] for row in rows]


def test_a_large_event_does_not_starve_a_small_one(pool: Pool, new_coupon: NewCoupon) -> None:
    crowded, small = new_coupon(total=300), new_coupon()
    issue_to(pool, crowded, *(f"user-{number}" for number in range(300)))
    issue_to(pool, small, "kim", "lee")
    outbox.fan_out(pool, ("file",), limit=500, give_up_s=DAY_S)
    oldest = pool.fetch_all("SELECT coupon_id FROM deliveries ORDER BY outbox_id LIMIT 100")
    assert small not in {row["coupon_id"] for row in oldest}  # the negative control: by age alone it would wait
    leased = lease_once(pool, 100)
    assert leased.count(small) == 2
    assert leased.count(crowded) == 50
    assert set(lease_once(pool, 100)) == {crowded}


def test_more_events_than_a_lease_holds_get_their_turn(pool: Pool, new_coupon: NewCoupon) -> None:
    ids = [new_coupon() for _ in range(12)]
    for coupon_id in ids:
        issue_to(pool, coupon_id, "kim")
    outbox.fan_out(pool, ("file",), limit=500, give_up_s=DAY_S)
    turns = [lease_once(pool, 5) for _ in range(3)]
    assert sorted(coupon_id for turn in turns for coupon_id in turn) == ids
    assert [len(turn) for turn in turns] == [5, 5, 2]


def pages_read(pool: Pool, sql: Any, params: dict[str, object]) -> int:
    """Return the number of pages that a statement reads."""
    with pool.connection() as connection, connection.transaction(force_rollback=True):
        (plan,) = connection.execute(b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + sql.encode(), params).fetchall()
    top = plan["QUERY PLAN"][0]["Plan"]
    return int(top["Shared Hit Blocks"]) + int(top["Shared Read Blocks"])


def test_sent_rows_do_not_make_the_relay_slower(pool: Pool, new_coupon: NewCoupon) -> None:
    coupon_id = new_coupon()
    issue_to(pool, coupon_id, "kim")
    outbox.fan_out(pool, ("file",), limit=500, give_up_s=DAY_S)
    issue_to(pool, coupon_id, "lee")
    fan_out = {"channels": ["file"], "limit": 500, "give_up_s": DAY_S}
    lease = {"channel": "file", "limit": 100, "lease_s": 60}
    few = [pages_read(pool, outbox.FAN_OUT, fan_out), pages_read(pool, deliveries.LEASE, lease)]
    pool.execute(
        """WITH o AS (INSERT INTO outbox (kind, issuance_id, sent_at, planned_at, channels_left)
           SELECT 'issuance.issued', 1000 + n, now(), now(), 0 FROM generate_series(1, 50000) n RETURNING id)
           INSERT INTO deliveries (outbox_id, channel, coupon_id, created_at, due_at, give_up_at, sent_at)
           SELECT id, 'file', %s, now(), now(), now(), now() FROM o""",
        [coupon_id],
    )
    pool.execute("ANALYZE")
    many = [pages_read(pool, outbox.FAN_OUT, fan_out), pages_read(pool, deliveries.LEASE, lease)]
    assert all(after < before + 100 for before, after in zip(few, many, strict=True)), (few, many)
    assert (
        pages_read(pool, "SELECT count(*) FROM deliveries WHERE sent_at IS NOT NULL", {}) > 500
    )  # the negative control
