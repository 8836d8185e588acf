"""The coupons on offer, cached in the process for at most one second."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from couponapp.guards.cache import Cache
from couponapp.storage.pool import Pool, Row

# The contract: `remaining` may be up to 1 s old, and a pause is effective everywhere within 1 s.
MAX_AGE_S = 1.0
# Early enough that a busy process has the new value before the sold-out list distrusts the old one
# (`couponapp.issuing.sold_out.TRUSTED_S`): a crowd would go on to PostgreSQL.
REFRESH_AFTER_S = 0.3
MAX_LISTED = 100


class Status(StrEnum):
    """What a visitor sees."""

    SCHEDULED = "SCHEDULED"
    OPEN = "OPEN"
    SOLD_OUT = "SOLD_OUT"
    PAUSED = "PAUSED"
    CLOSED = "CLOSED"


@dataclass(frozen=True)
class Coupon:
    """A coupon as the database showed it at `read_at` of its own clock.

    Attributes:
        read_at: the database's clock when it was read.
        asked_mono_s: this process's monotonic clock before the read, in seconds.
        answered_mono_s: the same clock after the read, in seconds.
    """

    id: int
    name: str
    total: int
    remaining: int
    opens_at: datetime
    closes_at: datetime
    valid_days: int
    state: str
    read_at: datetime
    asked_mono_s: float
    answered_mono_s: float

    def now(self, mono_s: float) -> datetime:
        """Return the latest that the database's clock can show at a moment of the monotonic clock."""
        return self.read_at + timedelta(seconds=mono_s - self.asked_mono_s)

    def earliest_now(self, mono_s: float) -> datetime:
        """Return the earliest that the database's clock can show at a moment of the monotonic clock."""
        return self.read_at + timedelta(seconds=mono_s - self.answered_mono_s)

    def may_have_opened(self, mono_s: float) -> bool:
        """Return whether the coupon is open at the latest that the database's clock can show."""
        return self.now(mono_s) >= self.opens_at

    def has_surely_opened(self, mono_s: float) -> bool:
        """Return whether the coupon is open even at the earliest that the database's clock can show."""
        return self.earliest_now(mono_s) >= self.opens_at

    def has_surely_closed(self, mono_s: float) -> bool:
        """Return whether it is closed for good, or past its end even at the earliest possible time."""
        return self.state == "closed" or self.earliest_now(mono_s) >= self.closes_at

    def is_surely_paused(self, mono_s: float) -> bool:
        """Return whether it was paused less than a second ago; an older reading may be out of date."""
        return self.state == "paused" and self.age_s(mono_s) <= MAX_AGE_S

    def age_s(self, mono_s: float) -> float:
        """Return the greatest possible age at a moment of the monotonic clock, in seconds."""
        return mono_s - self.asked_mono_s

    def is_stale(self, mono_s: float) -> bool:
        """Return whether it is older than it would be while PostgreSQL answers."""
        return self.age_s(mono_s) > MAX_AGE_S

    def status(self, mono_s: float) -> Status:
        """Return what a visitor sees at a moment of the monotonic clock, in seconds."""
        now = self.now(mono_s)
        if self.state == "closed" or now >= self.closes_at:
            return Status.CLOSED
        if now < self.opens_at:
            return Status.SCHEDULED
        if self.state == "paused":
            return Status.PAUSED
        return Status.OPEN if self.remaining > 0 else Status.SOLD_OUT


_COLUMNS = """
    c.id, c.name, c.total, s.remaining, c.opens_at, c.closes_at, c.valid_days, c.state,
    clock_timestamp() AS read_at
"""

READ_ONE = f"""
SELECT {_COLUMNS}
FROM coupons c JOIN coupon_stock s ON s.coupon_id = c.id AND s.lane = 0
WHERE c.id = %(coupon_id)s
"""

READ_CURRENT = f"""
SELECT {_COLUMNS}
FROM coupons c JOIN coupon_stock s ON s.coupon_id = c.id AND s.lane = 0
WHERE c.state <> 'closed' AND c.closes_at > now()
ORDER BY c.opens_at DESC, c.id DESC
LIMIT {MAX_LISTED}
"""


class Catalogue:
    """Reads coupons through a cache that one greenlet at a time refreshes."""

    def __init__(self, pool: Pool, clock: Callable[[], float] = time.monotonic) -> None:
        """Keep the pool.

        Args:
            pool: for the reads.
            clock: monotonic, in seconds.
        """
        self._pool = pool
        self._clock = clock
        self._coupons: Cache[int, Coupon | None] = Cache(
            self._read_one, max_age_s=MAX_AGE_S, refresh_after_s=REFRESH_AFTER_S, clock=clock
        )
        self._current: Cache[None, tuple[Coupon, ...]] = Cache(self._read_current, max_age_s=MAX_AGE_S, clock=clock)

    def coupon(self, coupon_id: int, *, wait_s: float | None = None) -> Coupon | None:
        """Return one coupon, or None where there is none. At most one second old while PostgreSQL answers.

        Args:
            coupon_id: 1 to 2^63 - 1.
            wait_s: how long to wait for a first read, in seconds.

        Raises:
            couponapp.errors.Unavailable: PostgreSQL does not answer and nothing is cached.
        """
        return self._coupons.get(coupon_id, wait_s=wait_s)

    def current(self) -> tuple[Coupon, ...]:
        """Return the coupons that run or are to come, the latest opening first; errors as in `coupon`."""
        return self._current.get(None)

    def mono_s(self) -> float:
        """Read the clock that `Coupon.now` and `Coupon.status` take, in seconds."""
        return self._clock()

    def _read_one(self, coupon_id: int) -> Coupon | None:
        asked_s = self._clock()
        row = self._pool.fetch_one(READ_ONE, {"coupon_id": coupon_id})
        return _coupon(row, asked_s, self._clock()) if row else None

    def _read_current(self, _: None) -> tuple[Coupon, ...]:
        asked_s = self._clock()
        rows = self._pool.fetch_all(READ_CURRENT)
        return tuple(_coupon(row, asked_s, self._clock()) for row in rows)


def _coupon(row: Row, asked_s: float, answered_s: float) -> Coupon:
    return Coupon(**row, asked_mono_s=asked_s, answered_mono_s=answered_s)
