"""Counters that are obviously right, and sequences of requests to compare others with."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from limits import RateLimitItemPerMinute

from couponapp.guards.hits import Hit, RateLimitStatus
from tests.support.clock import Clock

USERS = [f"user-{number}" for number in range(6)]
WINDOW_S = 60


class Reference:
    """Remembers every hit and looks at all of them each time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began_s: dict[str, float] = {}
        self._hits: Counter[str] = Counter()

    def count(self, hits: Sequence[Hit]) -> tuple[bool, int]:
        for one in hits:
            if self._clock() - self._began_s.get(one.key, -WINDOW_S) >= WINDOW_S:
                self._hits[one.key] = 0
        for one in hits:
            if self._hits[one.key] >= one.limit.amount:
                return True, 0
        for one in hits:
            if not self._hits[one.key]:
                self._began_s[one.key] = self._clock()
            self._hits[one.key] += 1
        return False, hits[0].limit.amount - self._hits[hits[0].key]


def limits_of(user: str, *, own: int = 3, overall: int = 10) -> list[Hit]:
    return [Hit(user, RateLimitItemPerMinute(own)), Hit("all", RateLimitItemPerMinute(overall))]


def steps(seed: int, count: int) -> list[tuple[str, float]]:
    """Users, and the time that has passed before each asks; borders of windows are met exactly."""
    chance = random.Random(seed)
    return [(chance.choice(USERS), chance.choice((0.0, 0.0, 0.0, 1.0, 7.5, 30.0, 60.0))) for _ in range(count)]


def reported(status: RateLimitStatus) -> tuple[bool, int]:
    return status.refused, 0 if status.refused else status.remaining
