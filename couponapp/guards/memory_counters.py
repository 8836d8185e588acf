"""Counters of the rate limits in this process alone."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from couponapp.guards.hits import Hit, RateLimitStatus, status_of

# How often counters whose window has ended are dropped, in seconds.
SWEEP_EVERY_S = 10.0


class MemoryCounters:
    """Counts in the process, which takes its part of the limits that all processes share."""

    def __init__(self, processes: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Start at zero.

        Args:
            processes: into how many parts a shared limit falls.
            clock: monotonic, in seconds.
        """
        self._processes = processes
        self._clock = clock
        self._windows: dict[str, Window] = {}
        self._sweep_s = clock() + SWEEP_EVERY_S
        self._lock = threading.Lock()

    def count(self, hits: Sequence[Hit], cost: int = 1) -> RateLimitStatus:
        """Count all hits, or none where a limit refuses; arguments as in `hits.Counters.count`."""
        amounts = [max(1, hit.limit.amount // self._processes) if hit.shared else hit.limit.amount for hit in hits]
        with self._lock:
            now_s = self._clock()
            self._sweep(now_s)
            windows = [self._window(hit, now_s) for hit in hits]
            refusing = next((i for i, window in enumerate(windows, 1) if window.count >= amounts[i - 1]), 0)
            counted = [refusing]
            for hit, window in zip(hits, windows, strict=True):
                if cost and not refusing:
                    self._windows.setdefault(hit.name, window).count += cost
                counted += (window.count, math.ceil(1000 * (window.ends_s - now_s)))
        return status_of(amounts, counted)

    def give_back(self, hit: Hit) -> None:
        """Take one count back, because something else refused the request."""
        with self._lock:
            window = self._window(hit, self._clock())
            window.count -= window.count > 0  # its window may have ended meanwhile

    def _window(self, hit: Hit, now_s: float) -> Window:
        window = self._windows.get(hit.name)
        if window is not None and window.ends_s > now_s:
            return window
        self._windows.pop(hit.name, None)
        return Window(now_s + hit.limit.get_expiry())  # starts with its first hit, so it is not kept yet

    def _sweep(self, now_s: float) -> None:
        if now_s >= self._sweep_s:
            self._sweep_s = now_s + SWEEP_EVERY_S
            self._windows = {name: window for name, window in self._windows.items() if window.ends_s > now_s}


@dataclass(slots=True)
class Window:
    """Until when hits count together, by the counters' clock, and how many there were."""

    ends_s: float
    count: int = 0
