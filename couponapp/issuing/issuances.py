"""What a holder holds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from couponapp.storage.pool import Pool, Row


@dataclass(frozen=True)
class Issuance:
    """One coupon held by one user."""

    id: int
    coupon_id: int
    coupon_name: str
    user_id: str
    code: str
    issued_at: datetime
    expires_at: datetime

    @classmethod
    def from_row(cls, row: Row) -> Issuance:
        """Read the columns that are named like the attributes."""
        return cls(**{name: row[name] for name in cls.__dataclass_fields__})


LIST_OF_HOLDER = """
SELECT i.id, i.coupon_id, c.name AS coupon_name, i.user_id, i.code, i.issued_at, i.expires_at
FROM issuances i JOIN coupons c ON c.id = i.coupon_id
WHERE i.user_id = %(user_id)s AND i.id < %(before_id)s
ORDER BY i.id DESC
LIMIT %(limit)s
"""

NEWEST = 2**63 - 1


def list_of_holder(pool: Pool, user_id: str, *, limit: int, before_id: int = NEWEST) -> list[Issuance]:
    """Return a user's issuances, newest first.

    Args:
        pool: for the read.
        user_id: the holder.
        limit: the most to return.
        before_id: only those with a smaller id, to go on from a page's last one.
    """
    rows = pool.fetch_all(LIST_OF_HOLDER, {"user_id": user_id, "before_id": before_id, "limit": limit})
    return [Issuance.from_row(row) for row in rows]


ONE_OF_HOLDER = """
SELECT i.id, i.coupon_id, c.name AS coupon_name, i.user_id, i.code, i.issued_at, i.expires_at
FROM issuances i JOIN coupons c ON c.id = i.coupon_id
WHERE i.id = %(id)s AND i.user_id = %(user_id)s
"""


def one_of_holder(pool: Pool, user_id: str, issuance_id: int) -> Issuance | None:
    """Return one issuance, or None where there is none or another user holds it."""
    row = pool.fetch_one(ONE_OF_HOLDER, {"id": issuance_id, "user_id": user_id})
    return Issuance.from_row(row) if row else None
