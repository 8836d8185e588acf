"""A cache in front of a slow reader: one fetch per key at a time (single flight), stale values rather than waits.

Each fetch has a thread of its own, a greenlet in a web process.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from couponapp.errors import Unavailable

log = logging.getLogger(__name__)

# How long a caller waits for the first fetch of a key.
FIRST_WAIT_S = 1.0
# How long a caller waits for a new value when the cached one is too old. After a failed fetch it does
# not wait: a stale value is better than a wait that people notice.
STALE_WAIT_S = 0.3
# Requests for keys that do not exist must not fill the memory.
MAX_ENTRIES = 10_000

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True)
class _Entry(Generic[V]):
    value: V
    # When the fetch started: later changes may not be in the value.
    as_of_s: float
    # After a failed fetch: no other before this moment. 0: the last fetch succeeded.
    retry_at_s: float = 0.0


@dataclass(frozen=True)
class _Fetch(Generic[V]):
    """A read under way, shared by all callers that want its result."""

    result: Future[V]
    started_s: float


class Cache(Generic[K, V]):
    """Values by key, each at most `max_age_s` old as long as the reader works and is fast.

    From `refresh_after_s` on, one background thread fetches a new value while all callers get the
    cached one. If the reader fails or hangs, callers keep getting the cached value; there is never more
    than one fetch per key, so there is no stampede.
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
        """Start empty.

        Args:
            read: returns the value of a key in bounded time; raises `Unavailable` if it cannot.
            max_age_s: the age from which a caller waits for a new value, in seconds.
            refresh_after_s: the age from which a new value is fetched in the background, in seconds; half of
                `max_age_s` by default.
            clock: monotonic, in seconds.
            first_wait_s: how long a caller waits if nothing is cached, in seconds.
            stale_wait_s: how long a caller waits if the value is too old, in seconds.
            max_entries: if there are more, the least recently used are dropped.
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
        """Return the value of a key, cached or fetched now.

        Args:
            key: passed to the reader.
            wait_s: a shorter wait for the first fetch than the cache's own, in seconds.

        Raises:
            couponapp.errors.Unavailable: nothing is cached, and the value cannot be fetched in time.
        """
        with self._lock:
            entry, now_s = self._entries.get(key), self._clock()
            if entry is not None:
                self._entries.move_to_end(key)
                if now_s - entry.as_of_s < self._refresh_after_s or now_s < entry.retry_at_s:
                    return entry.value
            fetch = self._fetches.get(key) or self._start_fetch(key, now_s)
        if entry is None:
            return self._wait_for_fetch(
                fetch, self._first_wait_s if wait_s is None else min(wait_s, self._first_wait_s)
            )
        last_failed = entry.retry_at_s > 0
        if last_failed or now_s - entry.as_of_s < self._max_age_s or now_s - fetch.started_s > self._stale_wait_s:
            return entry.value
        try:
            return self._wait_for_fetch(fetch, self._stale_wait_s)
        except Unavailable:
            return entry.value

    def _start_fetch(self, key: K, now_s: float) -> _Fetch[V]:
        fetch: _Fetch[V] = _Fetch(Future(), now_s)
        threading.Thread(target=self._fetch, args=(key, fetch), name="cache", daemon=True).start()
        # After the start, which can fail, and before the thread can finish: finishing takes the lock.
        self._fetches[key] = fetch
        return fetch

    @staticmethod
    def _wait_for_fetch(fetch: _Fetch[V], wait_s: float) -> V:
        try:
            return fetch.result.result(wait_s)
        except TimeoutError as error:
            raise Unavailable() from error

    def _fetch(self, key: K, fetch: _Fetch[V]) -> None:
        """Read a value, store it, and wake the callers that wait for it."""
        try:
            entry = _Entry(self._read(key), fetch.started_s)
        except BaseException as error:  # of any kind: it belongs to the callers that wait
            if not isinstance(error, Unavailable):
                log.exception("cache: the reader failed")
            with self._lock:
                if (old := self._entries.get(key)) is not None:
                    self._entries[key] = replace(old, retry_at_s=self._clock() + self._max_age_s / 2)
                del self._fetches[key]
            fetch.result.set_exception(error)
            return
        with self._lock:
            self._entries[key] = entry
            self._entries.move_to_end(key)
            while len(self._entries) > self._max_entries:
                self._entries.popitem(last=False)
            del self._fetches[key]
        fetch.result.set_result(entry.value)
