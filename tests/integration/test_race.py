"""No interleaving loses a piece, sells one too many, gives a user two or tells a holder «sold out»."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import LiteralString
from zoneinfo import ZoneInfo

import psycopg
import pytest
from redis import Redis
from rq.worker import SimpleWorker

from couponapp.issuing import statement as ours
from couponapp.notifying import jobs
from couponapp.notifying.channels.file.channel import FileChannel
from couponapp.notifying.outbox import Notification
from couponapp.notifying.relay import Relay
from couponapp.storage.pool import Pool, Timeouts
from tests.support.coupon_tables import CLEAR
from tests.support.databases import Databases
from tests.support.race import CONNECTIONS, judge, race
from tests.support.servers import wait_until

NewCoupon = Callable[..., int]

# The wrong variants share our snapshot and our answer and differ in the writing part only.
_EVALUATED: LiteralString = f"WITH evaluated AS MATERIALIZED ({ours._EVALUATED}),"
_ANSWER: LiteralString = ours.ISSUE[ours.ISSUE.index("SELECT evaluated.n, evaluated.coupon_id") :]
_RETURNING: LiteralString = "RETURNING id, user_id, code, issued_at, expires_at"
_OUTBOX_ROWS: LiteralString = (
    "outbox_rows AS (INSERT INTO outbox (kind, issuance_id) SELECT 'issuance.issued', id FROM issued)"
)
_UPDATE_FIRST: LiteralString = """
reserved AS (
    UPDATE coupon_stock AS s SET remaining = s.remaining - 1
    FROM evaluated
    WHERE s.coupon_id = evaluated.coupon_id AND s.lane = 0 AND s.remaining > 0
      AND evaluated.verdict = 'ISSUED' {and_not_held}
    RETURNING s.coupon_id, evaluated.requester, evaluated.new_code, evaluated.key, evaluated.valid_days
),
issued AS (
    INSERT INTO issuances (coupon_id, user_id, code, idempotency_key, expires_at)
    SELECT coupon_id, requester, new_code, key, now() + make_interval(days => valid_days) FROM reserved
    ON CONFLICT DO NOTHING
    {returning}
),
"""
_NOT_HELD: LiteralString = """
    AND NOT EXISTS (SELECT FROM issuances i WHERE i.coupon_id = s.coupon_id AND i.user_id = evaluated.requester)
"""

UPDATE_THEN_INSERT_THAT_DOES_NOTHING: LiteralString = (
    _EVALUATED + _UPDATE_FIRST.format(and_not_held="", returning=_RETURNING) + _OUTBOX_ROWS + _ANSWER
)
UPDATE_THAT_LOOKS_FOR_THE_ISSUANCE: LiteralString = (
    _EVALUATED + _UPDATE_FIRST.format(and_not_held=_NOT_HELD, returning=_RETURNING) + _OUTBOX_ROWS + _ANSWER
)
INSERT_THAT_STAYS_WHEN_NO_PIECE_IS_LEFT: LiteralString = ours.ISSUE.replace(
    "CASE WHEN reserved.coupon_id IS NOT NULL THEN issued.id END", "issued.id"
)
# What is wrong only where several users are served at once.
ONE_PIECE_FOR_ALL_OF_THEM: LiteralString = ours.ISSUE.replace("s.remaining - taken.pieces", "s.remaining - 1")
MORE_USERS_THAN_PIECES: LiteralString = ours.ISSUE.replace(" AND place <= remaining", "").replace(
    "CASE WHEN reserved.coupon_id IS NOT NULL THEN issued.id END", "issued.id"
)


@pytest.fixture(scope="module")
def database(databases: Databases) -> Iterator[tuple[str, Pool]]:
    """A database of this file, and a pool on it with as many connections as callers."""
    with databases.fresh() as url:
        pool = Pool(url, name="test", max_size=CONNECTIONS, timeouts=Timeouts.within(60_000))
        assert pool.warm_up(30)
        yield url, pool
        pool.close()


@pytest.fixture
def database_url(database: tuple[str, Pool]) -> str:
    """That database, for every test here."""
    return database[0]


@pytest.fixture
def racing_pool(database: tuple[str, Pool]) -> Pool:
    """That pool, on empty tables: what a wrong statement has left would be found again."""
    pool = database[1]
    pool.execute(CLEAR)
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
    jobs.configure(jobs.ChannelSender(pool, channel))
    relay = Relay(pool, redis, lease_s=3600)
    while relay.hand_over():
        SimpleWorker([jobs.queue_name(channel.name)], connection=redis).work(burst=True)
    return channel.sent


class CountingChannel(FileChannel):
    """The file channel, which also counts: a file alone would hide a second message."""

    def __init__(self, directory: Path, time_zone: ZoneInfo) -> None:
        super().__init__(directory, time_zone)
        self.sent: Counter[str] = Counter()

    def send(self, notification: Notification) -> None:
        super().send(notification)
        self.sent[notification.user_id] += 1


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


@pytest.mark.parametrize(
    ("stock", "users", "each"), [(1, 50, 1), (10, 300, 3), (100, 300, 3), (150, 100, 5), (1000, 200, 3)]
)
def test_the_race_ends_as_well_where_each_statement_serves_several_users(
    racing_pool: Pool, database_url: str, new_coupon: NewCoupon, stock: int, users: int, each: int
) -> None:
    coupon_id = new_coupon(total=stock)
    told = race(racing_pool, database_url, coupon_id, mixed(users, each), together=8)
    assert judge(racing_pool, coupon_id, stock, told) == []


@pytest.mark.parametrize(
    ("statement", "stock", "what"),
    [(ONE_PIECE_FOR_ALL_OF_THEM, 500, "are not the total of 500"), (MORE_USERS_THAN_PIECES, 20, "issued of 20")],
)
def test_that_race_catches_what_is_wrong_for_several_users(
    racing_pool: Pool, database_url: str, new_coupon: NewCoupon, statement: LiteralString, stock: int, what: str
) -> None:
    coupon_id = new_coupon(total=stock)
    told = race(racing_pool, database_url, coupon_id, mixed(100, 3), together=8, statement=statement)
    assert any(what in one for one in judge(racing_pool, coupon_id, stock, told))


def mixed(users: int, each: int) -> list[str]:
    """Every user's calls in different groups, in a different order in each."""
    chance = random.Random(20261123)
    calls = []
    for _ in range(each):
        round_of_all = [f"user-{number}" for number in range(users)]
        chance.shuffle(round_of_all)
        calls += round_of_all
    return calls


IN_THE_ORDER_OF_THEIR_COMING: LiteralString = ours.ISSUE.replace('ORDER BY requester COLLATE "C"', "")


@pytest.mark.parametrize(("statement", "deadlocks"), [(ours.ISSUE, 0), (IN_THE_ORDER_OF_THEIR_COMING, 1)])
def test_two_statements_with_the_same_users_in_opposite_order_wait_for_each_other_but_not_in_a_circle(
    racing_pool: Pool,
    pool: Pool,
    new_coupon: NewCoupon,
    database_url: str,
    statement: LiteralString,
    deadlocks: int,
) -> None:
    coupon_id, users = new_coupon(total=1000), [ours.IssueRequest(f"user-{number:02}") for number in range(40)]
    with psycopg.connect(database_url) as stranger, ThreadPoolExecutor(2) as executor:
        # In the middle of both ways, so that each has gone half of its way when the stranger steps aside.
        stranger.execute(
            ours.ISSUE.encode(), {"coupon_id": coupon_id, "users": ["user-20"], "keys": [None], "codes": ["X" * 20]}
        )
        both = [
            executor.submit(ours.issue_batch, racing_pool, coupon_id, requests, statement=statement)
            for requests in (users, list(reversed(users)))
        ]
        waits = (
            "SELECT count(*) AS n FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        wait_until(lambda: (pool.fetch_one(waits) or {})["n"] == 2, timeout_s=20, what="both wait")
        stranger.rollback()
        failed = [one.exception(60) for one in both]
    assert sum(error is not None for error in failed) == deadlocks
    if not deadlocks:
        outcomes = Counter(attempt.outcome for one in both for attempt in one.result())
        assert outcomes == {ours.Outcome.ISSUED: 40, ours.Outcome.ALREADY_ISSUED: 40}


def test_a_user_who_is_twice_in_one_statement_gets_one(pool: Pool, new_coupon: NewCoupon) -> None:
    attempts = ours.issue_batch(
        pool, new_coupon(total=5), [ours.IssueRequest("kim"), ours.IssueRequest("lee"), ours.IssueRequest("kim")]
    )
    assert [attempt.outcome for attempt in attempts] == [
        ours.Outcome.ISSUED,
        ours.Outcome.ISSUED,
        ours.Outcome.ALREADY_ISSUED,
    ]


def test_the_last_pieces_go_to_those_who_came_first_and_a_holder_among_them_is_told_so(
    pool: Pool, new_coupon: NewCoupon
) -> None:
    coupon_id = new_coupon(total=3)
    ours.issue(pool, coupon_id, "holder")
    names = ["kim", "holder", "lee", "park", "choi"]
    attempts = ours.issue_batch(pool, coupon_id, [ours.IssueRequest(name) for name in names])
    assert [attempt.outcome.value for attempt in attempts] == [
        "ISSUED", "ALREADY_ISSUED", "ISSUED", "SOLD_OUT", "SOLD_OUT"
    ]  # fmt: skip


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
