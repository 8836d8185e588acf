"""What is offered, cached in the process for at most one second."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Generic, TypeVar, cast

from couponapp.errors import Unavailable
from couponapp.storage.pool import Pool, Row

# The contract: `remaining` may be up to 1 s old, and a pause is effective everywhere within 1 s.
MAX_AGE_S = 1.0
# A caller waits that long for another one's refresh before it gives up.
MAX_WAIT_S = 1.0
MAX_LISTED = 100
# Ids that nobody has made must not fill the memory.
MAX_CACHED = 10_000


class Status(StrEnum):
    """What a visitor would see."""

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
        read_mono_s: this process's monotonic clock at the same moment, in seconds.
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
    read_mono_s: float

    def now(self, mono_s: float) -> datetime:
        """The database's clock at a moment of this process's monotonic clock, in seconds."""
        return self.read_at + timedelta(seconds=mono_s - self.read_mono_s)

    def status(self, mono_s: float) -> Status:
        """What a visitor would see at a moment of the monotonic clock, in seconds."""
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
    """Reads coupons through a cache that one caller at a time refreshes."""

    def __init__(self, pool: Pool, clock: Callable[[], float] = time.monotonic) -> None:
        """Keep the pool.

        Args:
            pool: where to read.
            clock: monotonic, in seconds.
        """
        self._pool = pool
        self._clock = clock
        self._coupons: Cache[int, Coupon | None] = Cache(self._read_one, clock=clock)
        self._current: Cache[None, tuple[Coupon, ...]] = Cache(self._read_current, clock=clock)

    def coupon(self, coupon_id: int) -> Coupon | None:
        """One coupon, or None where there is none. At most one second old while PostgreSQL answers.

        Raises:
            couponapp.errors.Unavailable: PostgreSQL does not answer and nothing is cached.
        """
        return self._coupons.get(coupon_id)

    def current(self) -> tuple[Coupon, ...]:
        """Coupons that run or are to come, the latest opening first; errors as in `coupon`."""
        return self._current.get(None)

    def mono_s(self) -> float:
        """The clock that `Coupon.now` and `Coupon.status` take, in seconds."""
        return self._clock()

    def _read_one(self, coupon_id: int) -> Coupon | None:
        asked_s = self._clock()
        row = self._pool.fetch_one(READ_ONE, {"coupon_id": coupon_id})
        return _coupon(row, asked_s) if row else None

    def _read_current(self, _: None) -> tuple[Coupon, ...]:
        asked_s = self._clock()
        return tuple(_coupon(row, asked_s) for row in self._pool.fetch_all(READ_CURRENT))


def _coupon(row: Row, asked_s: float) -> Coupon:
    # The moment of asking, not of the answer: a slow answer then makes our idea of the database's
    # clock run ahead, so an early refusal is never wrong. The statement has the last word anyway.
    return Coupon(**row, read_mono_s=asked_s)


K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True)
class _Entry(Generic[V]):
    value: V
    # The moment before the read began: what changed since then may not be in the value.
    as_of_s: float
    # Until then no refresh is tried, because the last one failed.
    stale_until_s: float = 0.0


class Cache(Generic[K, V]):
    """A bounded cache in which old values serve while one caller refreshes.

    Callers share one refresh and its result, so a slow or failing reader is asked once at a
    time and nobody queues behind the others. Where it fails, the old value goes on serving.
    """

    def __init__(
        self,
        read: Callable[[K], V],
        *,
        clock: Callable[[], float],
        max_age_s: float = MAX_AGE_S,
        max_wait_s: float = MAX_WAIT_S,
        max_entries: int = MAX_CACHED,
    ) -> None:
        """Keep the reader.

        Args:
            read: gets the value of a key, in bounded time; raises `Unavailable` where it cannot.
            clock: monotonic, in seconds.
            max_age_s: the oldest that a value may be while `read` works, in seconds.
            max_wait_s: how long a caller waits for another one's refresh, in seconds.
            max_entries: the least recently used go beyond that.
        """
        self._read = read
        self._clock = clock
        self._max_age_s = max_age_s
        # Refreshing at half the age leaves the other half for the refresh itself, while the
        # other callers still use the old value.
        self._fresh_s = max_age_s / 2
        self._max_wait_s = max_wait_s
        self._max_entries = max_entries
        self._entries: OrderedDict[K, _Entry[V]] = OrderedDict()
        self._flights: dict[K, Future[V]] = {}
        self._lock = threading.Lock()

    def get(self, key: K) -> V:
        """The value, cached or read now.

        Raises:
            couponapp.errors.Unavailable: nothing is cached and it cannot be read in time.
        """
        with self._lock:
            entry, now = self._entries.get(key), self._clock()
            flight = self._flights.get(key)
            if entry is not None and self._serves(entry, now, refreshing=flight is not None):
                self._entries.move_to_end(key)
                return entry.value
            if flight is None:
                mine = self._flights[key] = Future()
        if flight is None:
            return self._refresh(key, entry, mine)
        try:
            return flight.result(self._max_wait_s)
        except TimeoutError as error:
            raise Unavailable() from error

    def _serves(self, entry: _Entry[V], now: float, *, refreshing: bool) -> bool:
        age_s = now - entry.as_of_s
        return age_s < self._fresh_s or now < entry.stale_until_s or (refreshing and age_s < self._max_age_s)

    def _refresh(self, key: K, old: _Entry[V] | None, flight: Future[V]) -> V:
        as_of_s = self._clock()
        try:
            try:
                entry = _Entry(self._read(key), as_of_s)
            except Unavailable:
                if old is None:
                    raise
                entry = _Entry(old.value, old.as_of_s, stale_until_s=self._clock() + self._fresh_s)
            self._store(key, entry)
        except BaseException as error:
            self._land(key, flight, error=error)
            raise
        self._land(key, flight, value=entry.value)
        return entry.value

    def _store(self, key: K, entry: _Entry[V]) -> None:
        with self._lock:
            self._entries[key] = entry
            self._entries.move_to_end(key)
            while len(self._entries) > self._max_entries:
                self._entries.popitem(last=False)

    def _land(self, key: K, flight: Future[V], *, value: V | None = None, error: BaseException | None = None) -> None:
        with self._lock:
            del self._flights[key]
        if error is not None:
            flight.set_exception(error)
        else:
            flight.set_result(cast(V, value))
