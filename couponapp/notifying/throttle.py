"""The rate of a channel: so many messages in so much time, evenly spread."""

from __future__ import annotations

import time
from collections.abc import Callable

from limits import parse

# Turns that nobody took in time are made up for within this, so that a process that wakes up late
# keeps its rate. So much more than the rate may pass in any stretch of time.
MAKE_UP_S = 0.1
# Waking up for each turn of a high rate costs more than what is sent: several come together.
LEAST_WAIT_S = 0.05


class Throttle:
    """Lets messages pass at a rate. Asked by one thread at a time."""

    def __init__(self, rate: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with the first at once.

        Args:
            rate: such as `10/second`.
            clock: monotonic, in seconds.
        """
        limit = parse(rate)
        self._step_s = limit.get_expiry() / limit.amount
        self._clock = clock
        self._next_s = clock()

    def take(self) -> float:
        """Take a turn.

        Returns:
            0 where it was taken, else how long to wait before asking again, in seconds.
        """
        now_s = self._clock()
        if now_s < self._next_s:
            return max(self._next_s - now_s, LEAST_WAIT_S)
        self._next_s = max(self._next_s, now_s - MAKE_UP_S) + self._step_s
        return 0.0

    def turns(self, in_s: float) -> int:
        """How many there are in so many seconds, at least one."""
        return max(1, int(in_s / self._step_s))
