"""No interleaving loses a piece, sells one too many, gives a user two or tells a holder «sold out»."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import LiteralString
from zoneinfo import ZoneInfo

import pytest
from redis import Redis
from rq.worker import SimpleWorker

from couponapp.issuing import issue as ours
from couponapp.notifying import jobs
from couponapp.notifying.channels import FileChannel
from couponapp.notifying.outbox import Notice
from couponapp.notifying.relay import QUEUE_NAME, Relay
from couponapp.storage.pool import Pool
from tests.race import CONNECTIONS, judge, race

NewCoupon = Callable[..., int]

# The wrong variants share our snapshot and our answer and differ in the writing part only.
_SEEN: LiteralString = f"WITH seen AS MATERIALIZED ({ours._SEEN}),"
_ANSWER: LiteralString = ours.ISSUE[ours.ISSUE.index("SELECT seen.coupon_id") :]
_RETURNING: LiteralString = "RETURNING id, coupon_id, user_id, code, issued_at, expires_at"
_TOLD: LiteralString = "told AS (INSERT INTO outbox (kind, issuance_id) SELECT 'issuance.issued', id FROM issued)"
_UPDATE_FIRST: LiteralString = """
reserved AS (
    UPDATE coupon_stock AS s SET remaining = s.remaining - 1
    FROM seen
    WHERE s.coupon_id = seen.coupon_id AND s.lane = 0 AND s.remaining > 0 AND seen.verdict = 'ISSUED' {and_not_held}
    RETURNING s.coupon_id, seen.valid_days
),
issued AS (
    INSERT INTO issuances (coupon_id, user_id, code, idempotency_key, expires_at)
    SELECT coupon_id, %(user_id)s, %(code)s, %(key)s, now() + make_interval(days => valid_days) FROM reserved
    ON CONFLICT DO NOTHING
    {returning}
),
"""
_NOT_HELD: LiteralString = """
    AND NOT EXISTS (SELECT FROM issuances i WHERE i.coupon_id = s.coupon_id AND i.user_id = %(user_id)s)
"""

UPDATE_THEN_INSERT_THAT_DOES_NOTHING: LiteralString = (
    _SEEN + _UPDATE_FIRST.format(and_not_held="", returning=_RETURNING) + _TOLD + _ANSWER
)
UPDATE_THAT_LOOKS_FOR_THE_ISSUANCE: LiteralString = (
    _SEEN + _UPDATE_FIRST.format(and_not_held=_NOT_HELD, returning=_RETURNING) + _TOLD + _ANSWER
)
INSERT_THAT_STAYS_WHEN_NO_PIECE_IS_LEFT: LiteralString = ours.ISSUE.replace(
    "CASE WHEN reserved.coupon_id IS NOT NULL THEN issued.id END", "issued.id"
)


@pytest.fixture
def racing_pool(make_pool: Callable[..., Pool], database_url: str) -> Pool:
    """As many connections as callers."""
    pool = make_pool(database_url, size=CONNECTIONS, deadline_ms=60_000)
    assert pool.warm_up(30)
    return pool


def calls_of(users: int, each: int) -> list[str]:
    """Every user's calls stand side by side, so that twins meet."""
    return [f"user-{number}" for number in range(users) for _ in range(each)]


@pytest.mark.parametrize(
    ("stock", "users", "each"),
    [(0, 30, 3), (1, 50, 1), (1, 20, 5), (10, 300, 3), (100, 300, 3), (200, 100, 5), (1000, 100, 3)],
)
def test_the_race_ends_with_exactly_the_stock_issued_and_every_holder_notified_once(
    racing_pool: Pool,
    database_url: str,
    new_coupon: NewCoupon,
    redis_url: str,
    notifications: Path,
    stock: int,
    users: int,
    each: int,
) -> None:
    coupon_id = new_coupon(total=stock)
    told = race(racing_pool, database_url, coupon_id, calls_of(users, each))
    assert judge(racing_pool, coupon_id, stock, told) == []
    sent = deliver_all(racing_pool, Redis.from_url(redis_url), notifications)
    owners = racing_pool.fetch_all("SELECT user_id FROM issuances WHERE coupon_id = %s", [coupon_id])
    assert sent == Counter(row["user_id"] for row in owners)


def deliver_all(pool: Pool, redis: Redis, directory: Path) -> Counter[str]:
    """Relay and job until nothing is left; how many messages each user was sent."""
    channel = CountingChannel(directory, ZoneInfo("Asia/Seoul"))
    jobs.configure(jobs.Delivery(pool, channel))
    relay = Relay(pool, redis, lease_s=3600)
    while relay.hand_over():
        SimpleWorker([QUEUE_NAME], connection=redis).work(burst=True)
    return channel.sent


class CountingChannel(FileChannel):
    """The file channel, which also counts: a file alone would hide a second message."""

    def __init__(self, directory: Path, time_zone: ZoneInfo) -> None:
        super().__init__(directory, time_zone)
        self.sent: Counter[str] = Counter()

    def send(self, notice: Notice) -> None:
        super().send(notice)
        self.sent[notice.user_id] += 1


@pytest.mark.parametrize(
    ("statement", "stock", "users", "each", "what"),
    [
        (UPDATE_THEN_INSERT_THAT_DOES_NOTHING, 200, 100, 5, "are not the total of 200"),
        (UPDATE_THAT_LOOKS_FOR_THE_ISSUANCE, 200, 100, 5, "are not the total of 200"),
        (INSERT_THAT_STAYS_WHEN_NO_PIECE_IS_LEFT, 1, 50, 1, "50 issued of 1"),
    ],
)
def test_the_race_catches_each_losing_statement(
    racing_pool: Pool,
    database_url: str,
    new_coupon: NewCoupon,
    statement: LiteralString,
    stock: int,
    users: int,
    each: int,
    what: str,
) -> None:
    coupon_id = new_coupon(total=stock)
    told = race(racing_pool, database_url, coupon_id, calls_of(users, each), statement=statement)
    assert any(what in one for one in judge(racing_pool, coupon_id, stock, told))


def test_twins_with_one_key_get_the_same_issuance(racing_pool: Pool, database_url: str, new_coupon: NewCoupon) -> None:
    coupon_id = new_coupon(total=5)
    with ThreadPoolExecutor(20) as executor:
        attempts = list(executor.map(lambda _: ours.issue(racing_pool, coupon_id, "kim", "key-1"), range(20)))
    outcomes = [attempt.outcome for attempt in attempts]
    assert outcomes.count(ours.Outcome.ISSUED) == 1
    assert outcomes.count(ours.Outcome.REPLAYED) == 19
    assert len({attempt.issuance for attempt in attempts}) == 1


def test_one_key_for_two_coupons_at_the_same_moment_gets_one_of_them(racing_pool: Pool, new_coupon: NewCoupon) -> None:
    ids = [new_coupon(total=5), new_coupon(total=5)]
    with ThreadPoolExecutor(20) as executor:
        attempts = list(executor.map(lambda n: ours.issue(racing_pool, ids[n % 2], "kim", "key-1"), range(20)))
    outcomes = [attempt.outcome for attempt in attempts]
    assert outcomes.count(ours.Outcome.ISSUED) == 1
    assert outcomes.count(ours.Outcome.REPLAYED) == 9
    assert outcomes.count(ours.Outcome.IDEMPOTENCY_KEY_REUSED) == 10
