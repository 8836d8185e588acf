"""A bounded number of batches at a time; requests that wait for the same key share a batch.

    caller ── submit ──▶ free slot? ──▶ leads a batch of its own at once
                          │ no
                          ▼
                        queue (bounded) ──▶ a slot is handed over ──▶ leads a batch, takes others along
                          │                                          └▶ or is taken along by a leader
                          ├─ full      → QueueFull at once
                          └─ too late  → DeadlineExceeded

Without it a burst takes every step together: all begin before any of them ends, and most run out of
time with nothing to show. No request waits for a batch to fill: alone, it runs alone and at once.

In the web process each caller is a greenlet of the event loop, and a wait here lets the others run.
There is no thread of its own: the caller that leads a batch runs it, and releases the others' latches.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from couponapp.errors import DeadlineExceeded, QueueFull, Unavailable
from couponapp.guards.deadline import Deadline

KeyT = TypeVar("KeyT", bound=Hashable)
RequestT = TypeVar("RequestT")
ResultT = TypeVar("ResultT")

# A request in another one's batch waits this much longer than the deadline by which the batch ends.
GRACE_S = 0.05


def _do_nothing() -> None:
    pass


@dataclass(eq=False)
class _Waiter(Generic[KeyT, RequestT, ResultT]):
    """One caller. It waits at the latch until it leads a batch, or has its result."""

    request: RequestT
    batch_key: KeyT
    unique_key: Hashable
    deadline: Deadline
    on_start: Callable[[], None]
    latch: threading.Lock = field(default_factory=threading.Lock)
    batch: list[_Waiter[KeyT, RequestT, ResultT]] | None = None
    done: bool = False
    result: ResultT | None = None
    error: BaseException | None = None

    def __post_init__(self) -> None:
        self.latch.acquire()


class Batcher(Generic[KeyT, RequestT, ResultT]):
    """Runs requests in batches by key, first come, first served.

    A slot that becomes free goes to the request that has waited longest. `threading.Semaphore` lets
    newcomers overtake, and some then wait until their deadline while others pass by.
    """

    def __init__(
        self,
        run: Callable[[KeyT, Sequence[RequestT], float], Sequence[ResultT]],
        *,
        max_concurrent: int,
        max_waiting: int,
        max_batch_size: int = 1,
        min_remaining_s: float = 0.0,
    ) -> None:
        """Keep the numbers; nothing waits yet.

        Args:
            run: runs the requests of one key within so many seconds; returns their results in order.
            max_concurrent: batches that may run at the same time.
            max_waiting: requests that may wait; one more is refused at once.
            max_batch_size: requests that may share a batch.
            min_remaining_s: a request with less than this left of its deadline does not start, in
                seconds: there would be no time to do anything.
        """
        self._run = run
        self._free_slots = max_concurrent
        self._max_waiting = max_waiting
        self._max_batch_size = max_batch_size
        self._min_remaining_s = min_remaining_s
        self._waiting: deque[_Waiter[KeyT, RequestT, ResultT]] = deque()
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """How many requests wait now."""
        return len(self._waiting)

    def submit(
        self,
        request: RequestT,
        *,
        batch_key: KeyT,
        unique_key: Hashable,
        deadline: Deadline,
        on_start: Callable[[], None] = _do_nothing,
    ) -> ResultT:
        """Run a request, alone or in a batch, and return its result.

        Args:
            request: passed to `run`.
            batch_key: requests with equal keys may share a batch.
            unique_key: no two requests of a batch have equal ones.
            deadline: bounds the wait and the run together.
            on_start: called when the batch starts.

        Raises:
            QueueFull: `max_waiting` requests wait already.
            DeadlineExceeded: no slot became free in time, or the result is not there: the request
                may have run all the same.
            Exception: whatever `run` raises, for every request of the batch.
        """
        waiter = _Waiter[KeyT, RequestT, ResultT](request, batch_key, unique_key, deadline, on_start)
        wait_s = self._enter(waiter)
        if wait_s is not None:
            self._wait(waiter, wait_s)
        if waiter.batch is not None:
            self._lead(waiter.batch)
        if waiter.error is not None:
            raise waiter.error
        return waiter.result  # type: ignore[return-value]  # None only where `run` has returned it

    def _enter(self, waiter: _Waiter[KeyT, RequestT, ResultT]) -> float | None:
        """Take a slot, or join the queue: then return how long to wait there, in seconds."""
        with self._lock:
            if self._free_slots:
                self._free_slots -= 1
                waiter.batch = [waiter]
                return None
            wait_s = waiter.deadline.remaining_s() - self._min_remaining_s
            if wait_s <= 0:
                raise DeadlineExceeded()
            if len(self._waiting) >= self._max_waiting:
                raise QueueFull()
            self._waiting.append(waiter)
            return wait_s

    def _wait(self, waiter: _Waiter[KeyT, RequestT, ResultT], wait_s: float) -> None:
        try:
            waiter.latch.acquire(timeout=wait_s)
        finally:
            # Whatever ended the wait: a slot must not be handed to a caller that has gone.
            with self._lock:
                timed_out = waiter in self._waiting
                if timed_out:
                    self._waiting.remove(waiter)
        if timed_out:
            raise DeadlineExceeded()
        in_another_batch = waiter.batch is None and not waiter.done
        if in_another_batch and not waiter.latch.acquire(timeout=self._min_remaining_s + GRACE_S):
            raise DeadlineExceeded()

    def _lead(self, batch: list[_Waiter[KeyT, RequestT, ResultT]]) -> None:
        try:
            timeout_s = min(waiter.deadline.remaining_s() for waiter in batch)
            for waiter in batch:
                waiter.on_start()
            results = self._run(batch[0].batch_key, [waiter.request for waiter in batch], timeout_s)
            for waiter, result in zip(batch, results, strict=True):
                waiter.result = result
        except BaseException as error:  # whatever it is, the whole batch has failed
            for waiter in batch:
                waiter.error = error if waiter is batch[0] else _copy(error)
        finally:
            self._pass_on_slot()
            for waiter in batch[1:]:
                waiter.done = True
                waiter.latch.release()

    def _pass_on_slot(self) -> None:
        with self._lock:
            # A request with too little time left is about to give up.
            first = next((waiter for waiter in self._waiting if waiter.deadline.has_s(self._min_remaining_s)), None)
            if first is None:
                self._free_slots += 1
                return
            # The slot changes hands without being free in between, so no newcomer takes it.
            self._waiting.remove(first)
            first.batch = [first, *self._take_along(first)]
            first.latch.release()

    def _take_along(self, first: _Waiter[KeyT, RequestT, ResultT]) -> list[_Waiter[KeyT, RequestT, ResultT]]:
        if self._max_batch_size <= 1:
            return []
        unique = {first.unique_key}
        taken: list[_Waiter[KeyT, RequestT, ResultT]] = []
        stay: deque[_Waiter[KeyT, RequestT, ResultT]] = deque()
        for waiter in self._waiting:
            fits = waiter.batch_key == first.batch_key and waiter.unique_key not in unique
            if fits and len(taken) + 1 < self._max_batch_size and waiter.deadline.has_s(self._min_remaining_s):
                unique.add(waiter.unique_key)
                taken.append(waiter)
            else:
                stay.append(waiter)
        self._waiting = stay
        return taken


def _copy(error: BaseException) -> BaseException:
    """Return the same error for another caller: one exception raised in several would mix up their traces."""
    if not isinstance(error, Unavailable):
        return error
    copy = type(error)(str(error))
    copy.__cause__ = error
    return copy
