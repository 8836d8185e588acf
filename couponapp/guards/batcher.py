"""A bounded number of places; who waits for the same thing is let in together."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from couponapp.errors import DeadlineExceeded, QueueFull, Unavailable
from couponapp.guards.deadline import Deadline

Q = TypeVar("Q")
A = TypeVar("A")

# Who is served by another waits for it this much longer than the deadline by which that one ends.
GRACE_S = 0.05


@dataclass(eq=False)
class _Waiter(Generic[Q, A]):
    """One caller. It waits at the latch until it leads a group, or has its answer."""

    question: Q
    deadline: Deadline
    begins: Callable[[], None]
    latch: threading.Lock = field(default_factory=threading.Lock)
    group: list[_Waiter[Q, A]] | None = None
    done: bool = False
    answer: A | None = None
    error: BaseException | None = None

    def __post_init__(self) -> None:
        self.latch.acquire()


class Batcher(Generic[Q, A]):
    """Serves questions at a bounded number of places; a bounded number of others wait.

    Without it a crowd that comes in one moment takes every step together: all begin before any of
    them is done, and most then run out of time with nothing to show.

    First come, first served, strictly: a place that becomes free goes to who has waited longest.
    `threading.Semaphore` lets newcomers overtake, and some then wait until their deadline while
    others pass by. Who has a place takes along those that wait for the same thing and serves them
    in one go. Nobody waits for a group to fill up: alone, one is served alone and at once.
    """

    def __init__(
        self,
        serve: Callable[[Sequence[Q], float], Sequence[A]],
        *,
        places: int,
        max_waiting: int,
        reserve_s: float = 0.0,
        same: Callable[[Q], Hashable] | None = None,
        only_once: Callable[[Q], Hashable] | None = None,
        max_group: int = 1,
    ) -> None:
        """Make the places.

        Args:
            serve: answers a group of questions, in their order, within so many seconds.
            places: how many groups may be served at the same time.
            max_waiting: how many may wait; one more is refused at once.
            reserve_s: who has less than this left of the deadline, in seconds, is not let in any
                more: there would be no time to do anything inside.
            same: questions for which this is equal may be served together; left out, none.
            only_once: no two questions for which this is equal are in one group.
            max_group: how many may be served together.
        """
        self._serve = serve
        self._free = places
        self._max_waiting = max_waiting
        self._reserve_s = reserve_s
        self._same = same
        self._only_once = only_once or id
        self._max_group = max_group
        self._waiting: deque[_Waiter[Q, A]] = deque()
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """How many wait now."""
        return len(self._waiting)

    def ask(self, question: Q, deadline: Deadline, *, begins: Callable[[], None] = lambda: None) -> A:
        """Have a question answered.

        Args:
            question: for `serve`.
            deadline: bounds the wait and the service together.
            begins: called when the service begins.

        Raises:
            QueueFull: too many wait already.
            DeadlineExceeded: there is no place in time, or no answer: it may have been served.
            Exception: whatever `serve` raises.
        """
        visit: _Waiter[Q, A] = _Waiter(question, deadline, begins)
        wait_s = self._enter(visit)
        if wait_s is not None:
            self._wait(visit, wait_s)
        if visit.group is not None:
            self._lead(visit.group)
        if visit.error is not None:
            raise visit.error
        return visit.answer  # type: ignore[return-value]  # None only where `serve` has said so

    def _enter(self, visit: _Waiter[Q, A]) -> float | None:
        """Take a place, or a number in the queue: then how long to wait there, in seconds."""
        with self._lock:
            if self._free:
                self._free -= 1
                visit.group = [visit]
                return None
            wait_s = visit.deadline.remaining_s() - self._reserve_s
            if wait_s <= 0:
                raise DeadlineExceeded()
            if len(self._waiting) >= self._max_waiting:
                raise QueueFull()
            self._waiting.append(visit)
            return wait_s

    def _wait(self, visit: _Waiter[Q, A], wait_s: float) -> None:
        try:
            visit.latch.acquire(timeout=wait_s)
        finally:
            # Whatever has ended the wait: nobody may be called who does not listen any more.
            with self._lock:
                waited_in_vain = visit in self._waiting
                if waited_in_vain:
                    self._waiting.remove(visit)
        if waited_in_vain:
            raise DeadlineExceeded()
        # Another one may have taken this one along, and is being served.
        if visit.group is None and not visit.done and not visit.latch.acquire(timeout=self._reserve_s + GRACE_S):
            raise DeadlineExceeded()

    def _lead(self, group: list[_Waiter[Q, A]]) -> None:
        try:
            timeout_s = min(visit.deadline.remaining_s() for visit in group)
            for visit in group:
                visit.begins()
            for visit, answer in zip(group, self._serve([visit.question for visit in group], timeout_s), strict=True):
                visit.answer = answer
        except BaseException as error:  # whatever it is belongs to all of them
            for visit in group:
                visit.error = error if visit is group[0] else _another(error)
        finally:
            self._leave()
            for visit in group[1:]:
                visit.done = True
                visit.latch.release()

    def _leave(self) -> None:
        with self._lock:
            # Who has too little time left is about to go.
            first = next((visit for visit in self._waiting if visit.deadline.has_s(self._reserve_s)), None)
            if first is None:
                self._free += 1
                return
            # The place changes hands and is never free.
            self._waiting.remove(first)
            first.group = [first, *self._companions(first)]
            first.latch.release()

    def _companions(self, first: _Waiter[Q, A]) -> list[_Waiter[Q, A]]:
        if self._same is None or self._max_group <= 1:
            return []
        wanted, taken = self._same(first.question), {self._only_once(first.question)}
        companions: list[_Waiter[Q, A]] = []
        stay: deque[_Waiter[Q, A]] = deque()
        for visit in self._waiting:
            once = self._only_once(visit.question)
            fits = self._same(visit.question) == wanted and once not in taken and visit.deadline.has_s(self._reserve_s)
            if fits and len(companions) + 1 < self._max_group:
                taken.add(once)
                companions.append(visit)
            else:
                stay.append(visit)
        self._waiting = stay
        return companions


def _another(error: BaseException) -> BaseException:
    """The same error for another thread: one exception raised in several would mix up their traces."""
    if not isinstance(error, Unavailable):
        return error
    another = type(error)(str(error))
    another.__cause__ = error
    return another
