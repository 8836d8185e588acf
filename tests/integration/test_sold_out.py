"""After the last piece: who holds none is told without PostgreSQL, who holds one is never told «sold out»."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from couponapp.issuing.catalogue import Catalogue, Coupon
from couponapp.issuing.sold_out import TRUSTED_S, SoldOut
from couponapp.issuing.statement import Outcome, issue
from couponapp.planning import coupons
from couponapp.storage.pool import Pool
from tests.support.postgres_proxy import PostgresProxy
from tests.support.servers import wait_until

NewCoupon = Callable[..., int]


@pytest.fixture
def read_pool(make_pool: Callable[..., Pool], relay: PostgresProxy, database_url: str) -> Pool:
    """Its round trips are counted."""
    pool = make_pool(relay.url)
    assert pool.warm_up(20)
    return pool


@pytest.fixture
def sold_out(read_pool: Pool) -> SoldOut:
    return SoldOut(read_pool)


def look(pool: Pool, coupon_id: int) -> Coupon:
    """The coupon as a process sees it that has nothing cached."""
    coupon = Catalogue(pool).coupon(coupon_id)
    assert coupon is not None
    return coupon


def refuses(sold_out: SoldOut, coupon: Coupon, user: str, *, age_s: float = 0.1) -> bool:
    """Whether the memory refuses somebody, with a look at the coupon that is so old."""
    return sold_out.is_sold_out_for(coupon, user, coupon.asked_mono_s + age_s)


def issue_when_stocked(pool: Pool, coupon_id: int, user: str) -> None:
    """New pieces of a coupon that was sold out can be had a moment later."""
    wait_until(
        lambda: issue(pool, coupon_id, user).outcome is Outcome.ISSUED, timeout_s=5, what="the new piece can be had"
    )


def test_all_but_the_holders_are_refused_after_one_read(
    pool: Pool, new_coupon: NewCoupon, sold_out: SoldOut, relay: PostgresProxy
) -> None:
    coupon_id = new_coupon(total=2)
    for user in ("kim", "lee"):
        issue(pool, coupon_id, user)
    coupon = look(pool, coupon_id)
    assert refuses(sold_out, coupon, "park")
    before = relay.round_trips
    assert all(refuses(sold_out, coupon, f"user-{n}") for n in range(100))
    assert not refuses(sold_out, coupon, "kim")
    assert not refuses(sold_out, coupon, "lee")
    assert relay.round_trips == before


def test_a_coupon_without_a_single_piece_is_sold_out_for_everybody(
    pool: Pool, new_coupon: NewCoupon, sold_out: SoldOut
) -> None:
    assert refuses(sold_out, look(pool, new_coupon(total=0)), "kim")


def test_while_a_piece_is_left_nothing_is_said(pool: Pool, new_coupon: NewCoupon, sold_out: SoldOut) -> None:
    assert not refuses(sold_out, look(pool, new_coupon(total=1)), "kim")


def test_a_restock_between_the_look_and_the_read_is_noticed(
    pool: Pool, new_coupon: NewCoupon, sold_out: SoldOut
) -> None:
    coupon_id = new_coupon(total=1)
    issue(pool, coupon_id, "kim")
    coupon = look(pool, coupon_id)
    coupons.restock(pool, coupon_id, 1)
    assert not refuses(sold_out, coupon, "lee")


def test_those_who_got_one_after_a_restock_are_holders_when_it_sells_out_again(
    pool: Pool, new_coupon: NewCoupon, sold_out: SoldOut
) -> None:
    coupon_id = new_coupon(total=1)
    issue(pool, coupon_id, "kim")
    assert refuses(sold_out, look(pool, coupon_id), "lee")
    coupons.restock(pool, coupon_id, 1)
    issue_when_stocked(pool, coupon_id, "lee")
    again = look(pool, coupon_id)
    assert not refuses(sold_out, again, "lee")
    assert refuses(sold_out, again, "park")


def test_without_postgresql_nothing_is_claimed(
    pool: Pool, new_coupon: NewCoupon, sold_out: SoldOut, relay: PostgresProxy
) -> None:
    coupon_id = new_coupon(total=0)
    coupon = look(pool, coupon_id)
    relay.close()
    assert not refuses(sold_out, coupon, "kim")


def test_an_old_look_is_not_trusted(pool: Pool, new_coupon: NewCoupon, sold_out: SoldOut) -> None:
    coupon = look(pool, new_coupon(total=0))
    assert refuses(sold_out, coupon, "kim", age_s=TRUSTED_S)
    assert not refuses(sold_out, coupon, "kim", age_s=TRUSTED_S + 0.01)


def test_nobody_gets_a_new_piece_while_a_memory_of_before_may_still_be_trusted(
    pool: Pool, new_coupon: NewCoupon
) -> None:
    coupon_id = new_coupon(total=0)
    before = look(pool, coupon_id)
    coupons.restock(pool, coupon_id, 1)
    issue_when_stocked(pool, coupon_id, "lee")
    row = pool.fetch_one("SELECT extract(epoch FROM issued_at) AS at FROM issuances")
    assert row is not None
    assert float(row["at"]) - before.read_at.timestamp() > TRUSTED_S
