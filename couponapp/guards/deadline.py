"""One time bound for all waits of a request together."""

from __future__ import annotations

import time
from collections.abc import Callable

from couponapp.errors import DeadlineExceeded


class Deadline:
    """A moment by which a request must be done. Starts on construction; every wait asks for the remaining time."""

    def __init__(self, total_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Start the time.

        Args:
            total_s: how long all waits together may take, in seconds.
            clock: monotonic, in seconds.
        """
        self._clock = clock
        self._end_s = clock() + total_s

    def remaining_s(self) -> float:
        """Return the remaining time in seconds, always more than zero.

        Raises:
            DeadlineExceeded: no time is left.
        """
        left_s = self._end_s - self._clock()
        if left_s <= 0:
            raise DeadlineExceeded()
        return left_s

    def has_s(self, seconds: float) -> bool:
        """Return whether at least this many seconds are left."""
        return self._end_s - self._clock() >= seconds
