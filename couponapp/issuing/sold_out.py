"""The sold-out list: after the last piece, a request needs no answer from PostgreSQL."""

from __future__ import annotations

import math

from couponapp.errors import Unavailable
from couponapp.guards.cache import Cache
from couponapp.issuing.catalogue import Coupon
from couponapp.storage.pool import Pool

# 100 to 400 bytes a holder, by the length of the ids. Beyond that the statement answers, which writes
# nothing either.
MAX_HOLDERS = 200_000
MAX_REMEMBERED = 5
# New pieces of a sold-out coupon are issued 0.9 s after the restock at the earliest
# (`couponapp.planning.coupons.RESTOCK`). A reading younger than this is from before that.
TRUSTED_S = 0.75
# Waiting longer for the list than the statement itself would take gains nothing.
WAIT_S = 0.1

# The stock and the holders in one snapshot: where it shows no piece left, it shows every holder.
READ_HOLDERS = """
SELECT array_agg(i.user_id) AS holders
FROM coupons c
JOIN coupon_stock s ON s.coupon_id = c.id AND s.lane = 0
LEFT JOIN issuances i ON i.coupon_id = c.id
WHERE c.id = %(coupon_id)s AND c.total = %(total)s AND s.remaining = 0
GROUP BY c.id
"""


class SoldOut:
    """Tells the holders of a sold-out coupon from users who came too late.

    The holders of a coupon that is sold out at a given total do not change: no user can get one
    until it is restocked, which raises the total. So they are read once per coupon and total.
    """

    def __init__(self, pool: Pool) -> None:
        """Keep the pool.

        Args:
            pool: for the reads.
        """
        self._pool = pool
        self._holders: Cache[tuple[int, int], frozenset[str]] = Cache(
            self._read, max_age_s=math.inf, first_wait_s=WAIT_S, max_entries=MAX_REMEMBERED
        )

    def is_sold_out_for(self, coupon: Coupon, user_id: str, mono_s: float) -> bool:
        """Return whether the coupon is sold out and the user holds none. False also means «not known».

        Args:
            coupon: as the catalogue shows it.
            user_id: of the caller.
            mono_s: the catalogue's clock, in seconds.
        """
        if coupon.remaining > 0 or coupon.total > MAX_HOLDERS or coupon.age_s(mono_s) > TRUSTED_S:
            return False
        try:
            return user_id not in self._holders.get((coupon.id, coupon.total))
        except Unavailable:
            return False

    def _read(self, key: tuple[int, int]) -> frozenset[str]:
        coupon_id, total = key
        row = self._pool.fetch_one(READ_HOLDERS, {"coupon_id": coupon_id, "total": total})
        if row is None:
            raise Unavailable("restocked meanwhile")
        return frozenset(user for user in row["holders"] if user is not None)
