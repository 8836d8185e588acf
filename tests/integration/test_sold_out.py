"""After the last piece: who holds none is told without PostgreSQL, who holds one is never told «sold out»."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from couponapp.issuing.catalogue import Catalogue, Coupon
from couponapp.issuing.issue import issue
from couponapp.issuing.sold_out import SoldOut
from couponapp.planning import coupons
from couponapp.storage.pool import Pool
from tests.pgrelay import PgRelay

NewCoupon = Callable[..., int]


@pytest.fixture
def read_pool(make_pool: Callable[..., Pool], relay: PgRelay, database_url: str) -> Pool:
    """Its round trips are counted."""
    pool = make_pool(relay.url(database_url))
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


def test_all_but_the_holders_are_refused_after_one_read(
    pool: Pool, new_coupon: NewCoupon, sold_out: SoldOut, relay: PgRelay
) -> None:
    coupon_id = new_coupon(total=2)
    for user in ("kim", "lee"):
        issue(pool, coupon_id, user)
    coupon = look(pool, coupon_id)
    assert sold_out.is_sold_out_for(coupon, "park")
    before = relay.round_trips
    assert all(sold_out.is_sold_out_for(coupon, f"user-{n}") for n in range(100))
    assert not sold_out.is_sold_out_for(coupon, "kim")
    assert not sold_out.is_sold_out_for(coupon, "lee")
    assert relay.round_trips == before


def test_a_coupon_without_a_single_piece_is_sold_out_for_everybody(
    pool: Pool, new_coupon: NewCoupon, sold_out: SoldOut
) -> None:
    assert sold_out.is_sold_out_for(look(pool, new_coupon(total=0)), "kim")


def test_while_a_piece_is_left_nothing_is_said(pool: Pool, new_coupon: NewCoupon, sold_out: SoldOut) -> None:
    assert not sold_out.is_sold_out_for(look(pool, new_coupon(total=1)), "kim")


def test_a_restock_between_the_look_and_the_read_is_noticed(
    pool: Pool, new_coupon: NewCoupon, sold_out: SoldOut
) -> None:
    coupon_id = new_coupon(total=1)
    issue(pool, coupon_id, "kim")
    coupon = look(pool, coupon_id)
    coupons.restock(pool, coupon_id, 1)
    assert not sold_out.is_sold_out_for(coupon, "lee")


def test_those_who_got_one_after_a_restock_are_holders_when_it_sells_out_again(
    pool: Pool, new_coupon: NewCoupon, sold_out: SoldOut
) -> None:
    coupon_id = new_coupon(total=1)
    issue(pool, coupon_id, "kim")
    assert sold_out.is_sold_out_for(look(pool, coupon_id), "lee")
    coupons.restock(pool, coupon_id, 1)
    issue(pool, coupon_id, "lee")
    again = look(pool, coupon_id)
    assert not sold_out.is_sold_out_for(again, "lee")
    assert sold_out.is_sold_out_for(again, "park")


def test_without_postgresql_nothing_is_claimed(
    pool: Pool, new_coupon: NewCoupon, sold_out: SoldOut, relay: PgRelay
) -> None:
    coupon_id = new_coupon(total=0)
    coupon = look(pool, coupon_id)
    relay.close()
    assert not sold_out.is_sold_out_for(coupon, "kim")
