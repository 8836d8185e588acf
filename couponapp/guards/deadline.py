"""One bound for all the waits of a request together."""

from __future__ import annotations

import time
from collections.abc import Callable

from couponapp.errors import DeadlineExceeded


class Deadline:
    """Runs from its making; every wait asks it how long it may take."""

    def __init__(self, total_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Start.

        Args:
            total_s: how long everything may take, in seconds.
            clock: monotonic, in seconds.
        """
        self._clock = clock
        self._end_s = clock() + total_s

    def remaining_s(self) -> float:
        """What is left, in seconds; always more than zero.

        Raises:
            DeadlineExceeded: nothing is left.
        """
        left_s = self._end_s - self._clock()
        if left_s <= 0:
            raise DeadlineExceeded()
        return left_s

    def has_s(self, seconds: float) -> bool:
        """At least so much is left, in seconds."""
        return self._end_s - self._clock() >= seconds
