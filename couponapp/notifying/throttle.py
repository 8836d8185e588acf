"""A channel's rate, spread evenly over time."""

from __future__ import annotations

import time
from collections.abc import Callable

from limits import parse

# A process that wakes up late catches up on turns missed within this time, and so keeps its rate.
# Any stretch of time may exceed the rate by that much.
CATCH_UP_S = 0.1
# At a high rate, waking up for each turn costs more than the sends: several turns come together.
MIN_WAIT_S = 0.05


class Throttle:
    """Lets sends pass at a rate. Not thread-safe."""

    def __init__(self, rate: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with the first turn free.

        Args:
            rate: such as `10/second`.
            clock: monotonic, in seconds.
        """
        limit = parse(rate)
        self._step_s = limit.get_expiry() / limit.amount
        self._clock = clock
        self._next_s = clock()

    def take(self) -> float:
        """Take a turn if one is free.

        Returns:
            0 if it was taken, otherwise the seconds to wait before asking again.
        """
        now_s = self._clock()
        if now_s < self._next_s:
            return max(self._next_s - now_s, MIN_WAIT_S)
        self._next_s = max(self._next_s, now_s - CATCH_UP_S) + self._step_s
        return 0.0

    def turns(self, in_s: float) -> int:
        """Return the number of turns in this many seconds, at least one."""
        return max(1, int(in_s / self._step_s))
