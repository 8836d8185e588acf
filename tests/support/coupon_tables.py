"""What PostgreSQL holds, for a look at it beside the model."""

from __future__ import annotations

from dataclasses import dataclass

from couponapp.storage.pool import Pool
from tests.support.coupon_model import Held, World

COUPONS = """
SELECT c.id, c.total, s.remaining, c.state FROM coupons c JOIN coupon_stock s ON s.coupon_id = c.id ORDER BY c.id
"""
CLEAR = "TRUNCATE coupons, coupon_stock, issuances, outbox RESTART IDENTITY CASCADE"
HELD = "SELECT coupon_id, user_id, idempotency_key, code FROM issuances"


@dataclass(frozen=True)
class Tables:
    """What PostgreSQL holds: total, remaining and state by coupon, and what is held."""

    coupons: dict[int, tuple[int, int, str]]
    held: dict[tuple[int, str], Held]


def read_tables(pool: Pool) -> Tables:
    return Tables(
        {row["id"]: (row["total"], row["remaining"], row["state"]) for row in pool.fetch_all(COUPONS)},
        {(row["coupon_id"], row["user_id"]): Held(row["idempotency_key"], row["code"]) for row in pool.fetch_all(HELD)},
    )


def fits(world: World, tables: Tables) -> bool:
    expected = {
        number: (coupon.total, world.remaining(number), coupon.state) for number, coupon in world.coupons.items()
    }
    return (
        expected == tables.coupons
        and world.held.keys() == tables.held.keys()
        and all(
            held.key == tables.held[where].key and held.code in (None, tables.held[where].code)
            for where, held in world.held.items()
        )
    )
