"""A strategy for Flask-Limiter: all limits of a request in one round trip, all or none counted.

The stock strategies ask for one limit after the other and count each as they go. A user who is
over his own limit then still uses up the limit of all, and every limit costs a round trip.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from flask import g
from limits import RateLimitItem
from limits.storage import MemoryStorage, StorageTypes
from limits.storage.redis import RedisStorage
from limits.strategies import STRATEGIES, RateLimiter
from limits.util import WindowStats

NAME = "all-or-none"

# One hash slot for all keys, because a script may touch only one (Redis Cluster).
_PREFIX = "{couponapp}:limit"

# KEYS: one counter per limit. ARGV: amount and window in milliseconds per limit.
# Returns the index of the limit that refuses (0 for none), then count and time left per limit.
_SCRIPT = b"""
local refused = 0
local counts, left = {}, {}
for i, key in ipairs(KEYS) do
    counts[i] = tonumber(redis.call('GET', key) or '0')
    left[i] = redis.call('PTTL', key)
    if refused == 0 and counts[i] >= tonumber(ARGV[2 * i - 1]) then refused = i end
end
local answer = {refused}
for i, key in ipairs(KEYS) do
    if refused == 0 then
        counts[i] = redis.call('INCR', key)
        if left[i] < 0 then
            left[i] = tonumber(ARGV[2 * i])
            redis.call('PEXPIRE', key, left[i])
        end
    end
    answer[2 * i] = counts[i]
    answer[2 * i + 1] = left[i]
end
return answer
"""


@dataclass(frozen=True)
class Asked:
    """One limit that a request must pass.

    Attributes:
        key: whose counter it is.
        limit: how many in which time.
        shared: all processes share it, so that one that is alone with its counters takes its part.
    """

    key: str
    limit: RateLimitItem
    shared: bool = False


@dataclass(frozen=True)
class Standing:
    """How a request stands with the limit that matters most to it.

    Attributes:
        limit: what the window allows.
        remaining: what is left of it.
        reset_s: seconds until the window ends.
    """

    limit: int
    remaining: int
    reset_s: int


def ask(asked: Sequence[Asked], processes: int) -> None:
    """Say what the next hit of this request is about.

    Args:
        asked: the limits; the first that refuses is the one that is told.
        processes: into how many parts a shared limit falls when Redis is away.
    """
    g.asked_limits, g.limit_processes, g.limit_standing = asked, processes, None


def standing() -> Standing | None:
    """How this request stands, or None where nothing was counted."""
    found: Standing | None = g.get("limit_standing")
    return found


class AllOrNone(RateLimiter):
    """Fixed windows: the counter of a window begins with its first hit."""

    def __init__(self, storage: StorageTypes) -> None:
        super().__init__(storage)
        self._lock = threading.Lock()
        self._script = storage.get_connection().register_script(_SCRIPT) if isinstance(storage, RedisStorage) else None

    def hit(self, item: RateLimitItem, *identifiers: str, cost: int = 1) -> bool:
        """Count one for every limit that this request has asked for, or none.

        The arguments are Flask-Limiter's; what counts is what `ask` was told.
        """
        asked: Sequence[Asked] = g.asked_limits
        refused, counts = self._hit_redis(asked) if self._script is not None else self._hit_memory(asked)
        told = asked[max(0, refused - 1)], counts[max(0, refused - 1)]
        amount, (count, left_ms) = self._amount(told[0]), told[1]
        g.limit_standing = Standing(amount, max(0, amount - count), max(1, math.ceil(left_ms / 1000)))
        return refused == 0

    def test(self, item: RateLimitItem, *identifiers: str, cost: int = 1) -> bool:
        """Not used: nothing here is tested without being counted."""
        raise NotImplementedError

    def get_window_stats(self, item: RateLimitItem, *identifiers: str) -> WindowStats:
        """What the last hit of this request has seen; costs nothing."""
        seen = standing()
        return WindowStats(time.time() + seen.reset_s, seen.remaining) if seen else WindowStats(time.time(), 0)

    def _amount(self, asked: Asked) -> int:
        if self._script is None and asked.shared:
            return max(1, asked.limit.amount // int(g.limit_processes))
        return asked.limit.amount

    def _hit_redis(self, asked: Sequence[Asked]) -> tuple[int, list[tuple[int, int]]]:
        assert self._script is not None
        arguments = [number for one in asked for number in (one.limit.amount, one.limit.get_expiry() * 1000)]
        answer = self._script([f"{_PREFIX}:{one.key}:{one.limit}" for one in asked], arguments)
        return int(answer[0]), list(zip(answer[1::2], answer[2::2], strict=True))

    def _hit_memory(self, asked: Sequence[Asked]) -> tuple[int, list[tuple[int, int]]]:
        storage = self.storage
        assert isinstance(storage, MemoryStorage)
        keys = [f"{one.key}:{one.limit}" for one in asked]
        with self._lock:
            counts = [storage.get(key) for key in keys]
            amounts = [self._amount(one) for one in asked]
            refused = next((i for i, count in enumerate(counts, 1) if count >= amounts[i - 1]), 0)
            if not refused:
                counts = [storage.incr(key, one.limit.get_expiry()) for key, one in zip(keys, asked, strict=True)]
            left_ms = [int((storage.get_expiry(key) - time.time()) * 1000) for key in keys]
        return refused, list(zip(counts, left_ms, strict=True))


STRATEGIES[NAME] = AllOrNone  # type: ignore[assignment]  # the library's way in for strategies of others
