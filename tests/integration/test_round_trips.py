"""What an attempt costs, and what becomes of it when its answer is lost."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from couponapp.errors import Unavailable
from couponapp.issuing.statement import ISSUE, Outcome, issue
from couponapp.operating.verify import verify
from couponapp.planning import coupons
from couponapp.storage.pool import Pool
from tests.support.postgres_proxy import PostgresProxy
from tests.support.servers import wait_until

NewCoupon = Callable[..., int]


@pytest.fixture
def relayed_pool(make_pool: Callable[..., Pool], relay: PostgresProxy, database_url: str) -> Pool:
    """Its answers can be lost."""
    pool = make_pool(relay.url, size=8)
    assert pool.warm_up(20)
    return pool


def round_trips(relay: PostgresProxy, call: Callable[[], object]) -> int:
    before = relay.round_trips
    call()
    return relay.round_trips - before


def test_every_outcome_costs_one_round_trip(
    relay: PostgresProxy, relayed_pool: Pool, pool: Pool, new_coupon: NewCoupon
) -> None:
    open_one, other, sold_out, to_come, paused, closed = (
        new_coupon(), new_coupon(), new_coupon(total=0), new_coupon(opens_in_s=60), new_coupon(), new_coupon()
    )  # fmt: skip
    coupons.pause(pool, paused)
    coupons.close(pool, closed)
    cases = [
        (open_one, "k", Outcome.ISSUED),
        (open_one, "k", Outcome.REPLAYED),
        (open_one, None, Outcome.ALREADY_ISSUED),
        (other, "k", Outcome.IDEMPOTENCY_KEY_REUSED),
        (sold_out, None, Outcome.SOLD_OUT),
        (to_come, None, Outcome.NOT_OPEN),
        (paused, None, Outcome.PAUSED),
        (closed, None, Outcome.CLOSED),
        (4711, None, Outcome.COUPON_NOT_FOUND),
    ]
    for coupon_id, key, expected in cases:
        outcomes = []
        cost = round_trips(relay, lambda: outcomes.append(issue(relayed_pool, coupon_id, "kim", key).outcome))  # noqa: B023  # called at once
        assert (outcomes, cost) == ([expected], 1)


def test_a_race_lost_at_the_last_piece_costs_one_round_trip_and_to_ones_twin_two(
    relay: PostgresProxy, relayed_pool: Pool, pool: Pool, database_url: str, new_coupon: NewCoupon
) -> None:
    for winner, expected, cost in (("lee", Outcome.SOLD_OUT, 1), ("kim", Outcome.ALREADY_ISSUED, 2)):
        coupon_id = new_coupon(total=1)
        with psycopg.connect(database_url) as other, ThreadPoolExecutor(1) as executor:
            # The winner has its piece and has not committed yet: the loser saw a piece and waits.
            other.execute(
                ISSUE.encode(),
                {"coupon_id": coupon_id, "users": [winner], "keys": [None], "codes": [f"CODE-OF-THE-WINNER-{winner}"]},
            )
            before = relay.round_trips
            loser = executor.submit(issue, relayed_pool, coupon_id, "kim")
            waits = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            wait_until(lambda: pool.fetch_one(waits), timeout_s=10, what="the loser waits")  # noqa: B023  # called at once
            other.commit()
            assert loser.result().outcome is expected
        assert relay.round_trips - before == cost
    assert verify(pool).clean


def test_with_30_percent_of_the_answers_lost_those_told_are_those_who_own(
    relay: PostgresProxy, relayed_pool: Pool, pool: Pool, new_coupon: NewCoupon
) -> None:
    coupon_id = new_coupon(total=60)
    chance = random.Random(20261123)
    relay.loses = lambda: chance.random() < 0.3

    def insist(number: int) -> tuple[str, str | None]:
        user = f"user-{number}"
        for _ in range(50):
            try:
                attempt = issue(relayed_pool, coupon_id, user, f"key-{number}")
            except Unavailable:
                continue  # unknown: ask again with the same key
            assert attempt.outcome in (Outcome.ISSUED, Outcome.REPLAYED, Outcome.SOLD_OUT)
            return user, attempt.issuance.code if attempt.issuance else None
        raise AssertionError("never answered")

    with ThreadPoolExecutor(8) as executor:
        told = {user: code for user, code in executor.map(insist, range(100)) if code}
    owners = pool.fetch_all("SELECT user_id, code FROM issuances WHERE coupon_id = %s", [coupon_id])
    assert told == {row["user_id"]: row["code"] for row in owners}
    assert len(told) == 60
    assert relay.lost > 30
    assert verify(pool).clean


def test_without_a_key_and_without_the_second_try_a_lost_answer_is_a_holder_who_was_not_told(
    relay: PostgresProxy, relayed_pool: Pool, pool: Pool, new_coupon: NewCoupon
) -> None:
    # The negative control of the test above: what the key and the second try are for.
    coupon_id = new_coupon(total=5)
    losses = iter([True, True])
    relay.loses = lambda: next(losses, False)
    with pytest.raises(Unavailable):
        issue(relayed_pool, coupon_id, "kim")
    assert issue(relayed_pool, coupon_id, "kim").outcome is Outcome.ALREADY_ISSUED


def test_a_lost_answer_is_made_good_within_the_same_attempt(
    relay: PostgresProxy, relayed_pool: Pool, pool: Pool, new_coupon: NewCoupon
) -> None:
    losses = iter([True])
    relay.loses = lambda: next(losses, False)
    attempt = issue(relayed_pool, new_coupon(total=5), "kim")
    assert attempt.outcome is Outcome.ISSUED
    assert relay.lost == 1
    assert verify(pool).clean
