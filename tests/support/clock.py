"""A clock that a test moves."""

from __future__ import annotations


class Clock:
    """Seconds that pass when the test says so; called like `time.monotonic`.

    Attributes:
        now_s: what it shows.
    """

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    def move(self, seconds: float) -> None:
        """Let so many seconds pass."""
        self.now_s += seconds
