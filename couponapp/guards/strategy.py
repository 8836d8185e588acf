"""A strategy for Flask-Limiter: all limits of a request at once, all or none counted.

The stock strategies ask for one limit after the other and count each as they go. A user who is over
the limit of one user then still uses up the limit of all users, and every limit costs a round trip.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from limits import RateLimitItem
from limits.strategies import STRATEGIES, RateLimiter
from limits.util import WindowStats

from couponapp.guards.hits import Counters, Hit, RateLimitStatus

NAME = "all-or-none"


class AllOrNone(RateLimiter):
    """Fixed windows: a window starts with its first hit.

    Attributes:
        counters: where hits are counted. Flask-Limiter makes its strategy itself, from a storage of
            the `limits` library, which is not used: set the counters afterwards.
    """

    counters: Counters

    def __init__(self, storage: Any = None, *, counters: Counters | None = None) -> None:
        """Keep the counters; see the class for `storage`."""
        self.storage = storage
        if counters is not None:
            self.counters = counters

    def hit_all(self, hits: Sequence[Hit]) -> RateLimitStatus:
        """Count all hits, or none where a limit refuses; see `hits.Counters.count`."""
        return self.counters.count(hits)

    def hit(self, item: RateLimitItem, *identifiers: str, cost: int = 1) -> bool:
        """Count one limit alone, as Flask-Limiter asks for it; return whether it lets the request pass."""
        return not self.counters.count([_hit(item, identifiers)], cost).refused

    def test(self, item: RateLimitItem, *identifiers: str, cost: int = 1) -> bool:
        """Return whether a limit would let a request pass, without counting it."""
        return not self.counters.count([_hit(item, identifiers)], 0).refused

    def get_window_stats(self, item: RateLimitItem, *identifiers: str) -> WindowStats:
        """Return when the window of a limit ends, in seconds since 1970, and what is left of it."""
        status = self.counters.count([_hit(item, identifiers)], 0)
        return WindowStats(time.time() + status.reset_s, status.remaining)


def _hit(item: RateLimitItem, identifiers: Sequence[str]) -> Hit:
    # The endpoint comes before the caller: no user id can name another endpoint's counter.
    caller, *scope = identifiers
    return Hit(f"view:{':'.join(scope)}:{caller}", item)


STRATEGIES[NAME] = AllOrNone  # type: ignore[assignment]  # the library's way in for strategies of others
