"""A bounded number of places, so that what is under way gets done before more begins."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from couponapp.errors import DeadlineExceeded, Shed
from couponapp.guards.deadline import Deadline


@dataclass(eq=False)
class _Waiter:
    called: threading.Event = field(default_factory=threading.Event)


class Bulkhead:
    """Lets `places` callers in at a time; a bounded number of others wait for their turn.

    Without it a crowd that comes in one moment takes every step together: all pass the limits
    before any of them reaches the statement, and most then run out of time with nothing done.

    First come, first served, strictly: a place that becomes free is handed to who has waited
    longest. `threading.Semaphore` lets newcomers overtake, and some then wait until their
    deadline while others pass by.
    """

    def __init__(self, places: int, *, max_waiting: int, reserve_s: float = 0.0) -> None:
        """Make the places.

        Args:
            places: how many may be inside.
            max_waiting: how many may wait; one more is refused at once.
            reserve_s: who has less than this left of the deadline, in seconds, is not let in any
                more: there would be no time to do anything inside.
        """
        self._reserve_s = reserve_s
        self._free = places
        self._max_waiting = max_waiting
        self._waiters: deque[_Waiter] = deque()
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """How many wait now."""
        return len(self._waiters)

    @contextmanager
    def place(self, deadline: Deadline) -> Iterator[None]:
        """Hold a place.

        Args:
            deadline: bounds the wait.

        Raises:
            Shed: too many wait already.
            DeadlineExceeded: no place became free in time.
        """
        self._enter(deadline)
        try:
            yield
        finally:
            self._leave()

    def _enter(self, deadline: Deadline) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            wait_s = deadline.remaining_s() - self._reserve_s
            if wait_s <= 0:
                raise DeadlineExceeded()
            if len(self._waiters) >= self._max_waiting:
                raise Shed()
            waiter = _Waiter()
            self._waiters.append(waiter)
        try:
            waiter.called.wait(wait_s)
        finally:
            self._stop_waiting(waiter)
        if not waiter.called.is_set():
            raise DeadlineExceeded()

    def _stop_waiting(self, waiter: _Waiter) -> None:
        with self._lock:
            # Called or still in the queue, never both: who is called has been taken from it.
            if not waiter.called.is_set():
                self._waiters.remove(waiter)

    def _leave(self) -> None:
        with self._lock:
            if self._waiters:
                self._waiters.popleft().called.set()  # the place changes hands and is never free
            else:
                self._free += 1
