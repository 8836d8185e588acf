"""The rate of a channel: so many messages in so much time, evenly spread."""

from __future__ import annotations

import time
from collections.abc import Callable

from limits import parse


class Pace:
    """Lets messages pass at a rate. Asked by one thread."""

    def __init__(self, rate: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with the first at once.

        Args:
            rate: such as `10/second`.
            clock: monotonic, in seconds.
        """
        limit = parse(rate)
        self._step_s = limit.get_expiry() / limit.amount
        self._clock = clock
        self._next_s = 0.0

    def take(self) -> float:
        """Take a turn.

        Returns:
            0 where it was taken, else the seconds until there is one.
        """
        now_s = self._clock()
        if now_s < self._next_s:
            return self._next_s - now_s
        # Late turns are not made up for: the rate is a most, not an average.
        self._next_s = now_s + self._step_s
        return 0.0
