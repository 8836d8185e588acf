"""A cache that shields what is slow: one refresh at a time, and an old value rather than a wait."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from couponapp.errors import Unavailable

log = logging.getLogger(__name__)

# The first read of a key is waited for that long, in seconds.
FIRST_WAIT_S = 1.0
# A value that is too old is waited for that long, and after a failed read not at all: it is still
# better than a wait that people notice.
STALE_WAIT_S = 0.3
# Keys that mean nothing must not fill the memory.
MAX_ENTRIES = 10_000

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True)
class _Entry(Generic[V]):
    value: V
    # The moment before the read began: what changed since then may not be in the value.
    as_of_s: float
    # Until then no refresh is tried, because the last one failed; 0 where it did not.
    stale_until_s: float = 0.0


@dataclass(frozen=True)
class _Fetch(Generic[V]):
    """A read under way, shared by all who want its result."""

    result: Future[V]
    began_s: float


class Cache(Generic[K, V]):
    """Values by key, each at most `max_age_s` old while the reader works and is quick.

    Before that age, at half of it unless told otherwise, one background thread reads anew while all
    callers go on with the old value.
    Where the reader fails or hangs, the old value serves on; the reader is asked again by one
    thread at a time, so nobody queues behind anybody and there is no stampede.
    """

    def __init__(
        self,
        read: Callable[[K], V],
        *,
        max_age_s: float,
        refresh_after_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        first_wait_s: float = FIRST_WAIT_S,
        stale_wait_s: float = STALE_WAIT_S,
        max_entries: int = MAX_ENTRIES,
    ) -> None:
        """Keep the reader.

        Args:
            read: gets the value of a key, in bounded time; raises `Unavailable` where it cannot.
            max_age_s: see above, in seconds.
            refresh_after_s: the age at which it is read anew, in seconds; half of `max_age_s` when left out.
            clock: monotonic, in seconds.
            first_wait_s: how long a caller waits where nothing is cached yet, in seconds.
            stale_wait_s: how long one waits where the value is too old, in seconds.
            max_entries: the least recently used go beyond that.
        """
        self._read = read
        self._max_age_s = max_age_s
        self._refresh_after_s = max_age_s / 2 if refresh_after_s is None else refresh_after_s
        self._clock = clock
        self._first_wait_s = first_wait_s
        self._stale_wait_s = stale_wait_s
        self._max_entries = max_entries
        self._entries: OrderedDict[K, _Entry[V]] = OrderedDict()
        self._fetches: dict[K, _Fetch[V]] = {}
        self._lock = threading.Lock()

    def get(self, key: K, *, wait_s: float | None = None) -> V:
        """The value, cached or read now.

        Args:
            key: which one.
            wait_s: a shorter wait for a first read than the cache's own, in seconds.

        Raises:
            couponapp.errors.Unavailable: nothing is cached and it cannot be read in time.
        """
        with self._lock:
            entry, now_s = self._entries.get(key), self._clock()
            if entry is not None:
                self._entries.move_to_end(key)
                if now_s - entry.as_of_s < self._refresh_after_s or now_s < entry.stale_until_s:
                    return entry.value
            fetch = self._fetches.get(key) or self._start_fetch(key, now_s)
        if entry is None:
            return self._wait_for_fetch(
                fetch, self._first_wait_s if wait_s is None else min(wait_s, self._first_wait_s)
            )
        failed_last = entry.stale_until_s > 0
        if failed_last or now_s - entry.as_of_s < self._max_age_s or now_s - fetch.began_s > self._stale_wait_s:
            return entry.value
        try:
            return self._wait_for_fetch(fetch, self._stale_wait_s)
        except Unavailable:
            return entry.value

    def _start_fetch(self, key: K, now_s: float) -> _Fetch[V]:
        fetch: _Fetch[V] = _Fetch(Future(), now_s)
        threading.Thread(target=self._refresh, args=(key, fetch), name="cache", daemon=True).start()
        # After the start, which can fail, and before the thread can end: it needs the lock for that.
        self._fetches[key] = fetch
        return fetch

    @staticmethod
    def _wait_for_fetch(fetch: _Fetch[V], wait_s: float) -> V:
        try:
            return fetch.result.result(wait_s)
        except TimeoutError as error:
            raise Unavailable() from error

    def _refresh(self, key: K, fetch: _Fetch[V]) -> None:
        error: BaseException | None = None
        try:
            entry: _Entry[V] | None = _Entry(self._read(key), fetch.began_s)
        except BaseException as raised:  # whatever it is belongs to those who wait
            error, entry = raised, None
            if not isinstance(raised, Unavailable):
                log.exception("cache: the reader failed")
        with self._lock:
            if entry is None and (old := self._entries.get(key)) is not None:
                self._entries[key] = _Entry(old.value, old.as_of_s, self._clock() + self._max_age_s / 2)
            elif entry is not None:
                self._entries[key] = entry
                self._entries.move_to_end(key)
            while len(self._entries) > self._max_entries:
                self._entries.popitem(last=False)
            del self._fetches[key]
        if error is not None:
            fetch.result.set_exception(error)
        else:
            fetch.result.set_result(cast(_Entry[V], entry).value)
