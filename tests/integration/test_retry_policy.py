"""What becomes of a message: sent, tried again, dead; on each channel for itself."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis import Redis

from couponapp.errors import ChannelFailed, Unavailable
from couponapp.notifying import dead_letters, jobs, outbox
from couponapp.notifying import deliveries as table
from couponapp.notifying.jobs import CLAIM_BATCH, Policy
from couponapp.notifying.relay import MESSAGES_PER_JOB, Relay
from couponapp.notifying.retry_policy import MAX_CRASHES, MAX_DELAY_S
from couponapp.operating.verify import verify
from couponapp.storage.pool import Pool
from tests.support.notifying import TIME_PASSES, ScriptedChannel, count, deliveries, issue_to, temporary, work
from tests.support.postgres_proxy import PostgresProxy
from tests.support.servers import wait_until

NewCoupon = Callable[..., int]
DAY_S = 86_400.0


@pytest.fixture
def channel() -> ScriptedChannel:
    return ScriptedChannel()


@pytest.fixture
def step(pool: Pool, redis: Redis, channel: ScriptedChannel) -> Callable[..., None]:
    """Relay and job once."""

    def run(**policy: int) -> None:
        Relay(pool, redis, lease_s=60).hand_over()
        work(jobs.ChannelSender(pool, channel, policy=Policy(**policy)), redis)

    return run


# Failures


def test_a_message_that_fails_is_tried_again_after_longer_and_longer_and_different_delays(
    pool: Pool, new_coupon: NewCoupon, channel: ScriptedChannel, step: Callable[..., None]
) -> None:
    users = [f"user-{number}" for number in range(10)]
    issue_to(pool, new_coupon(), *users)
    for user in users:
        channel.fail(user, *temporary(3))
    for expected_s in (2.0, 4.0, 8.0):
        step()
        delays_s = [row["due_in_s"] for row in deliveries(pool)]
        assert len(set(delays_s)) == len(users)
        assert all(0.4 * expected_s < delay_s <= expected_s for delay_s in delays_s), delays_s
        pool.execute(TIME_PASSES)
    step()
    assert channel.sent == dict.fromkeys(users, 1)
    assert [(row["tries"], row["failures"], row["reason"]) for row in deliveries(pool)] == [(4, 3, None)] * 10


def test_no_delay_is_longer_than_the_longest(
    pool: Pool, new_coupon: NewCoupon, channel: ScriptedChannel, step: Callable[..., None]
) -> None:
    issue_to(pool, new_coupon(), "kim")
    channel.fail("kim", ChannelFailed("come back next year", retry_after_s=3e7))
    step()
    pool.execute("UPDATE deliveries SET failures = 900, tries = 900")
    pool.execute(TIME_PASSES)
    channel.fail("kim", *temporary())
    step(tries=1000)
    assert deliveries(pool)[0]["due_in_s"] <= MAX_DELAY_S


def test_before_its_delay_is_over_a_message_is_not_tried(
    pool: Pool, new_coupon: NewCoupon, channel: ScriptedChannel, step: Callable[..., None]
) -> None:
    issue_to(pool, new_coupon(), "kim")
    channel.fail("kim", ChannelFailed("not now", retry_after_s=30.0))
    step()
    step()
    assert channel.asked == ["kim"]
    (row,) = deliveries(pool)
    assert 10.0 < row["due_in_s"] <= 30.0


def test_a_message_that_will_never_be_accepted_is_a_dead_letter_at_once(
    pool: Pool, new_coupon: NewCoupon, channel: ScriptedChannel, step: Callable[..., None]
) -> None:
    issue_to(pool, new_coupon(), "kim", "lee")
    channel.fail("kim", ChannelFailed("no such address", permanent=True))
    step()
    (letter,) = dead_letters.oldest(pool, limit=10)
    assert (letter["user_id"], letter["reason"]) == ("kim", "no such address (permanent)")
    assert channel.sent == {"lee": 1}


def test_a_message_that_has_used_up_its_tries_is_a_dead_letter(
    pool: Pool, new_coupon: NewCoupon, channel: ScriptedChannel, step: Callable[..., None]
) -> None:
    issue_to(pool, new_coupon(), "kim")
    channel.fail("kim", *temporary(9))
    for dead in (0, 0, 1, 1):
        step(tries=3)
        pool.execute(TIME_PASSES)
        assert count(pool, "dead_at IS NOT NULL") == dead
    assert channel.asked == ["kim"] * 3
    assert dead_letters.oldest(pool, limit=10)[0]["reason"] == "not now (3 tries)"


def test_a_message_whose_time_is_over_gets_one_more_try_and_is_a_dead_letter_then(
    pool: Pool, new_coupon: NewCoupon, channel: ScriptedChannel, step: Callable[..., None]
) -> None:
    issue_to(pool, new_coupon(), "kim", "lee")
    for user in ("kim", "lee"):
        channel.fail(user, *temporary())
    step()
    pool.execute("UPDATE deliveries SET give_up_at = now()")
    pool.execute(TIME_PASSES)
    channel.fail("kim", *temporary())
    step()
    assert [letter["reason"] for letter in dead_letters.oldest(pool, limit=10)] == ["not now (its time is over)"]
    assert channel.sent == {"lee": 1}


def test_a_mistake_in_a_channel_is_a_failure_like_any_other(
    pool: Pool, new_coupon: NewCoupon, channel: ScriptedChannel, step: Callable[..., None]
) -> None:
    issue_to(pool, new_coupon(), "kim", "lee")
    channel.fail("kim", ZeroDivisionError("oops"))
    step()
    assert channel.sent == {"lee": 1}
    assert [row["reason"] for row in deliveries(pool)] == ["ZeroDivisionError('oops')", None]


# A message with which processes die


def crashed(pool: Pool, times: int) -> None:
    """As if a process had been killed in the middle of the message of «kim» so often."""
    sql = """UPDATE deliveries SET tries = tries + %s WHERE outbox_id =
             (SELECT o.id FROM outbox o JOIN issuances i ON i.id = o.issuance_id WHERE i.user_id = 'kim')"""
    assert pool.execute(sql, [times])
    pool.execute(TIME_PASSES)


def test_a_message_with_which_a_process_died_is_handed_over_alone(
    pool: Pool, new_coupon: NewCoupon, redis: Redis
) -> None:
    ids = issue_to(pool, new_coupon(), "lee", "kim", "park")
    outbox.plan(pool, ("file",), limit=10, give_up_s=DAY_S)
    crashed(pool, 1)
    with pool.connection() as connection, connection.transaction():
        leased = table.lease(connection, "file", limit=MESSAGES_PER_JOB, lease_s=60)
    of_kim = {row["issuance_id"]: row["outbox_id"] for row in deliveries(pool)}[ids[1]]
    assert leased.suspect == [of_kim]
    assert len(leased.sound) == 2


def test_a_message_with_which_processes_died_again_and_again_is_a_dead_letter(
    pool: Pool, new_coupon: NewCoupon, channel: ScriptedChannel, step: Callable[..., None]
) -> None:
    issue_to(pool, new_coupon(), "kim")
    channel.fail("kim", *temporary())
    step()
    crashed(pool, MAX_CRASHES)
    step()
    assert channel.asked == ["kim"]
    (letter,) = dead_letters.oldest(pool, limit=10)
    assert letter["reason"] == f"{MAX_CRASHES} times the process ended in the middle of it"


def test_messages_that_were_not_tried_after_all_have_lost_no_try(
    pool: Pool, new_coupon: NewCoupon, channel: ScriptedChannel, redis: Redis
) -> None:
    issue_to(pool, new_coupon(), "kim", "lee", "park")
    Relay(pool, redis, lease_s=60).hand_over()
    delivery = jobs.ChannelSender(pool, channel)
    delivery.stop.set()
    work(delivery, redis)
    assert [(row["tries"], row["due_in_s"] <= 0) for row in deliveries(pool)] == [(0, True)] * 3
    assert channel.asked == []


def test_what_a_job_did_not_come_to_is_given_back_unless_it_is_somebody_elses_by_now(
    pool: Pool, new_coupon: NewCoupon, channel: ScriptedChannel, redis: Redis
) -> None:
    users = [f"user-{number}" for number in range(3 * CLAIM_BATCH)]
    issue_to(pool, new_coupon(total=1_000), *users)
    Relay(pool, redis, lease_s=60).hand_over()
    last = deliveries(pool)[-1]["outbox_id"]
    delivery = jobs.ChannelSender(pool, channel, policy=Policy(concurrency=1))

    def meanwhile() -> None:
        """Another lease takes the last message, and this process is asked to end."""
        pool.execute("UPDATE deliveries SET due_at = now() + interval '1 hour' WHERE outbox_id = %s", [last])
        delivery.stop.set()

    channel.before = meanwhile
    work(delivery, redis)
    assert len(channel.sent) == 1
    rows = deliveries(pool)
    assert [row["tries"] for row in rows] == [1] + [0] * (len(users) - 1)
    assert all(row["due_in_s"] <= 0 for row in rows[1:-1])
    assert rows[-1]["due_in_s"] > 3_000


def test_a_job_claims_only_what_it_is_about_to_send(
    pool: Pool, new_coupon: NewCoupon, channel: ScriptedChannel, redis: Redis
) -> None:
    issue_to(pool, new_coupon(total=1_000), *(f"user-{number}" for number in range(3 * CLAIM_BATCH)))
    Relay(pool, redis, lease_s=60).hand_over()
    ahead: list[int] = []
    channel.before = lambda: ahead.append(count(pool, "tries > 0") - len(channel.asked))
    work(jobs.ChannelSender(pool, channel, policy=Policy(concurrency=1)), redis)
    assert len(ahead) == 3 * CLAIM_BATCH
    assert max(ahead) == CLAIM_BATCH


def test_a_job_whose_lease_is_nearly_over_begins_nothing(
    pool: Pool, new_coupon: NewCoupon, channel: ScriptedChannel, redis: Redis
) -> None:
    issue_to(pool, new_coupon(), "kim")
    Relay(pool, redis, lease_s=60).hand_over()
    work(jobs.ChannelSender(pool, channel, policy=Policy(timeout_s=61.0)), redis)
    assert channel.asked == []


def test_a_job_that_comes_before_its_lease_is_committed_waits_for_it(
    pool: Pool, new_coupon: NewCoupon, channel: ScriptedChannel
) -> None:
    """The relay enqueues inside its transaction, so a quick worker is there first."""
    issue_to(pool, new_coupon(), "kim")
    outbox.plan(pool, ("file",), limit=10, give_up_s=DAY_S)
    with ThreadPoolExecutor(1) as executor:
        with pool.connection() as connection, connection.transaction():
            (outbox_id,) = table.lease(connection, "file", limit=10, lease_s=60).sound
            job = executor.submit(jobs.ChannelSender(pool, channel).deliver, [outbox_id])
            blocked = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            wait_until(lambda: pool.fetch_all(blocked) or job.done(), timeout_s=20, what="the job waits")
            assert not job.done()
        job.result(20)
    assert channel.sent == {"kim": 1}


def test_a_job_that_loses_postgresql_in_the_middle_ends_and_nothing_is_lost(
    pool: Pool, new_coupon: NewCoupon, channel: ScriptedChannel, redis: Redis,
    make_pool: Callable[..., Pool], relay: PostgresProxy, database_url: str,
) -> None:  # fmt: skip
    users = [f"user-{number}" for number in range(3 * CLAIM_BATCH)]
    issue_to(pool, new_coupon(total=1_000), *users)
    Relay(pool, redis, lease_s=60).hand_over()
    ids = [row["outbox_id"] for row in deliveries(pool)]
    delivery = jobs.ChannelSender(make_pool(relay.url, deadline_ms=2_000), channel)

    def away_from_the_next_claim_on() -> None:
        relay.loses = lambda: len(channel.asked) >= CLAIM_BATCH - 1

    channel.before = away_from_the_next_claim_on
    with pytest.raises(Unavailable):
        delivery.deliver(ids)
    assert len(channel.sent) == CLAIM_BATCH
    channel.before, relay.loses = (lambda: None), lambda: False
    for _ in range(2):  # alone and together: those that were sent, and not noted, are suspected
        pool.execute(TIME_PASSES)
        Relay(pool, redis, lease_s=60).hand_over()
        work(jobs.ChannelSender(pool, channel), redis)
    assert set(channel.sent) == set(users)
    assert not count(pool, "sent_at IS NULL")


# Several channels


def test_each_channel_has_a_fate_of_its_own_and_the_last_one_makes_the_message_sent(
    pool: Pool, new_coupon: NewCoupon, redis: Redis
) -> None:
    coupon_id = new_coupon()
    issue_to(pool, coupon_id, "kim")
    first, second = ScriptedChannel("file"), ScriptedChannel("other")
    second.fail("kim", *temporary())
    relay = Relay(pool, redis, lease_s=60, channels=("file", "other"))
    assert relay.hand_over() == 2
    for channel in (first, second):
        work(jobs.ChannelSender(pool, channel), redis)
    assert [(row["channel"], row["sent_at"] is None) for row in deliveries(pool)] == [("file", False), ("other", True)]
    assert verify(pool, coupon_id).coupons[0]["notified"] == 0
    pool.execute(TIME_PASSES)
    assert relay.hand_over() == 1
    work(jobs.ChannelSender(pool, second), redis)
    assert verify(pool, coupon_id).coupons[0]["notified"] == 1
    assert (first.sent, second.sent) == ({"kim": 1}, {"kim": 1})


def test_channels_that_finish_the_same_messages_at_once_do_not_lose_one(pool: Pool, new_coupon: NewCoupon) -> None:
    coupon_id, names = new_coupon(total=200), ("a", "b", "c", "d")
    issue_to(pool, coupon_id, *(f"user-{number}" for number in range(200)))
    outbox.plan(pool, names, limit=500, give_up_s=DAY_S)
    ids = sorted({row["outbox_id"] for row in deliveries(pool)})

    def finish(name: str) -> None:
        order = ids if name in "ac" else ids[::-1]
        for start in range(0, len(order), 20):
            table.mark_sent(pool, name, order[start : start + 20])

    with ThreadPoolExecutor(4) as executor:
        list(executor.map(finish, names))
    assert verify(pool, coupon_id).coupons[0]["notified"] == 200


# Fairness and growth


def lease_once(pool: Pool, limit: int, sql: str = "") -> list[int]:
    """The coupons of one lease."""
    with pool.connection() as connection, connection.transaction():
        ids = table.lease(connection, "file", limit=limit, lease_s=60).sound
    rows = pool.fetch_all("SELECT coupon_id FROM deliveries WHERE outbox_id = ANY(%s)", [ids])
    return [row["coupon_id"] for row in rows]


def test_an_event_with_many_messages_does_not_starve_another(pool: Pool, new_coupon: NewCoupon) -> None:
    crowded, small = new_coupon(total=300), new_coupon()
    issue_to(pool, crowded, *(f"user-{number}" for number in range(300)))
    issue_to(pool, small, "kim", "lee")
    outbox.plan(pool, ("file",), limit=500, give_up_s=DAY_S)
    oldest = pool.fetch_all("SELECT coupon_id FROM deliveries ORDER BY outbox_id LIMIT 100")
    assert small not in {row["coupon_id"] for row in oldest}  # the negative control: in plain order it would wait
    leased = lease_once(pool, 100)
    assert leased.count(small) == 2
    assert leased.count(crowded) == 50
    assert set(lease_once(pool, 100)) == {crowded}


def test_more_events_than_there_is_room_for_get_their_turn(pool: Pool, new_coupon: NewCoupon) -> None:
    ids = [new_coupon() for _ in range(12)]
    for coupon_id in ids:
        issue_to(pool, coupon_id, "kim")
    outbox.plan(pool, ("file",), limit=500, give_up_s=DAY_S)
    turns = [lease_once(pool, 5) for _ in range(3)]
    assert sorted(coupon_id for turn in turns for coupon_id in turn) == ids
    assert [len(turn) for turn in turns] == [5, 5, 2]


def pages_read(pool: Pool, sql: Any, params: dict[str, object]) -> int:
    """How many pages a statement touches."""
    with pool.connection() as connection, connection.transaction(force_rollback=True):
        (plan,) = connection.execute(b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + sql.encode(), params).fetchall()
    top = plan["QUERY PLAN"][0]["Plan"]
    return int(top["Shared Hit Blocks"]) + int(top["Shared Read Blocks"])


def test_sent_rows_do_not_make_the_relay_slower(pool: Pool, new_coupon: NewCoupon) -> None:
    coupon_id = new_coupon()
    issue_to(pool, coupon_id, "kim")
    outbox.plan(pool, ("file",), limit=500, give_up_s=DAY_S)
    issue_to(pool, coupon_id, "lee")
    plan = {"channels": ["file"], "limit": 500, "give_up_s": DAY_S}
    lease = {"channel": "file", "limit": 100, "lease_s": 60}
    few = [pages_read(pool, outbox.PLAN, plan), pages_read(pool, table.LEASE, lease)]
    pool.execute(
        """WITH o AS (INSERT INTO outbox (kind, issuance_id, sent_at, planned_at, channels_left)
           SELECT 'issuance.issued', 1000 + n, now(), now(), 0 FROM generate_series(1, 50000) n RETURNING id)
           INSERT INTO deliveries (outbox_id, channel, coupon_id, created_at, due_at, give_up_at, sent_at)
           SELECT id, 'file', %s, now(), now(), now(), now() FROM o""",
        [coupon_id],
    )
    pool.execute("ANALYZE")
    many = [pages_read(pool, outbox.PLAN, plan), pages_read(pool, table.LEASE, lease)]
    assert all(after < before + 100 for before, after in zip(few, many, strict=True)), (few, many)
    assert (
        pages_read(pool, "SELECT count(*) FROM deliveries WHERE sent_at IS NOT NULL", {}) > 500
    )  # the negative control
