"""A strategy for Flask-Limiter: all limits of a request at once, all or none counted.

The stock strategies ask for one limit after the other and count each as they go. A user who is
over his own limit then still uses up the limit of all, and every limit costs a round trip.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from flask import g
from limits import RateLimitItem
from limits.strategies import STRATEGIES, RateLimiter
from limits.util import WindowStats

from couponapp.guards.counters import Hit, RateLimitStatus

NAME = "all-or-none"


class AllOrNone(RateLimiter):
    """Fixed windows: the counter of a window begins with its first hit.

    Attributes:
        counting: counts one for each of the limits it is given, or none where one of them refuses.
    """

    counting: Callable[[Sequence[Hit]], RateLimitStatus]

    def pass_all(self, asked: Sequence[Hit]) -> RateLimitStatus:
        """Count one for each limit, or none, and remember for this request how it stands.

        Args:
            asked: the limits; the first that refuses is the one that is told, otherwise the first.
        """
        g.limit_standing = rate_limit_status = self.counting(asked)
        return rate_limit_status

    def hit(self, item: RateLimitItem, *identifiers: str, cost: int = 1) -> bool:
        """One limit alone, as Flask-Limiter asks for it."""
        return not self.pass_all([Hit("/".join(identifiers), item)]).refused

    def test(self, item: RateLimitItem, *identifiers: str, cost: int = 1) -> bool:
        """Not used: nothing here is tested without being counted."""
        raise NotImplementedError

    def get_window_stats(self, item: RateLimitItem, *identifiers: str) -> WindowStats:
        """What the last hit of this request has seen; costs nothing."""
        seen = rate_limit_status()
        return WindowStats(time.time() + seen.reset_s, seen.remaining) if seen else WindowStats(time.time(), 0)


def rate_limit_status() -> RateLimitStatus | None:
    """How this request stands, or None where nothing was counted."""
    found: RateLimitStatus | None = g.get("limit_standing")
    return found


STRATEGIES[NAME] = AllOrNone  # type: ignore[assignment]  # the library's way in for strategies of others
