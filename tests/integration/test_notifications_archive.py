"""Rows that were sent long ago move to the archive, and no others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from redis import Redis
from rq import Queue

from couponapp.notifying import archive, dead_letters, deliveries, outbox
from couponapp.notifying.relay import Relay
from couponapp.operating.verify import verify
from couponapp.planning import coupons
from couponapp.storage.pool import Pool
from tests.support.notifying import issue_to
from tests.support.servers import running_worker, wait_until

NewCoupon = Callable[..., int]


def rows(pool: Pool, name: str) -> int:
    row = pool.fetch_one(f"SELECT count(*) AS n FROM {name}")
    assert row is not None
    return int(row["n"])


def send_all(pool: Pool, days_ago: int) -> None:
    """Fan out all rows and mark them as sent this many days ago."""
    outbox.fan_out(pool, ("file",), limit=10_000, give_up_s=60)
    ids = [row["outbox_id"] for row in pool.fetch_all("SELECT outbox_id FROM deliveries WHERE sent_at IS NULL")]
    deliveries.mark_sent(pool, "file", ids)
    pool.execute(
        """UPDATE outbox SET sent_at = sent_at - make_interval(days => %(days)s),
                             created_at = created_at - make_interval(days => %(days)s) WHERE id = ANY(%(ids)s)""",
        {"days": days_ago, "ids": ids},
    )


def test_only_rows_that_were_sent_long_ago_are_archived_and_counts_stay(pool: Pool, new_coupon: NewCoupon) -> None:
    coupon_id = new_coupon(total=1_000)
    issue_to(pool, coupon_id, *(f"old-{number}" for number in range(50)))
    send_all(pool, days_ago=31)
    issue_to(pool, coupon_id, *(f"new-{number}" for number in range(20)))
    send_all(pool, days_ago=29)
    issue_to(pool, coupon_id, "waiting")
    before, exported = verify(pool), list(coupons.export(pool, coupon_id))
    assert archive.archive(pool, keep_days=30, window=7) == 50
    assert (rows(pool, "outbox"), rows(pool, "outbox_archive"), rows(pool, "deliveries")) == (21, 50, 20)
    assert verify(pool) == before
    assert before.coupons[0]["notified"] == 70
    assert list(coupons.export(pool, coupon_id)) == exported
    assert archive.archive(pool, keep_days=30) == 0


def test_a_dead_letter_stays_and_does_not_block_archiving(pool: Pool, new_coupon: NewCoupon) -> None:
    coupon_id = new_coupon()
    issue_to(pool, coupon_id, "dead")
    outbox.fan_out(pool, ("file",), limit=10, give_up_s=60)
    pool.execute("UPDATE deliveries SET dead_at = now()")
    pool.execute("UPDATE outbox SET created_at = now() - interval '90 days'")
    issue_to(pool, coupon_id, "kim")
    outbox.fan_out(pool, ("file",), limit=10, give_up_s=60)
    pool.execute("UPDATE deliveries SET sent_at = now() WHERE dead_at IS NULL")
    pool.execute("UPDATE outbox SET sent_at = now() - interval '60 days', created_at = now() - interval '60 days' "
                 "WHERE created_at > now() - interval '1 day'")  # fmt: skip
    assert archive.archive(pool, keep_days=30, window=1) == 1
    assert [letter["user_id"] for letter in dead_letters.oldest(pool, limit=10)] == ["dead"]


def test_a_round_ends_in_time_and_the_next_one_continues(pool: Pool, new_coupon: NewCoupon) -> None:
    issue_to(pool, new_coupon(total=100), *(f"user-{number}" for number in range(30)))
    send_all(pool, days_ago=31)
    assert [archive.archive(pool, keep_days=30, window=10, round_s=0.0) for _ in range(4)] == [10, 10, 10, 0]


def test_any_number_of_relays_schedule_one_round(pool: Pool, redis_url: str) -> None:
    redis = Redis.from_url(redis_url)
    assert [Relay(pool, redis, lease_s=60).schedule_archive() for _ in range(3)] == [True, False, False]
    assert Queue(archive.UPKEEP_QUEUE, connection=redis).count == 1


def test_the_worker_archives_by_itself(
    tmp_path: Path, environ: dict[str, str], pool: Pool, new_coupon: NewCoupon
) -> None:
    issue_to(pool, new_coupon(), "kim", "lee")
    send_all(pool, days_ago=31)
    with running_worker(tmp_path, environ):
        wait_until(lambda: rows(pool, "outbox_archive") == 2, timeout_s=30, what="both rows are archived")
