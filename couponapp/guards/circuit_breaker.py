"""The circuit breaker: after too many failures, refuse at once for a while, then try a few calls.

pybreaker's states, listeners and exceptions, with the semantics of resilience4j (its documentation,
«CircuitBreaker», and its behaviour as executed): a window of the last calls instead of consecutive
failures, `>=` at the threshold, a bounded number of calls when half-open. Stock pybreaker holds its
lock during the guarded call, which makes all callers wait for each other; this one does not.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

import pybreaker

from couponapp.errors import CircuitOpen

log = logging.getLogger(__name__)

T = TypeVar("T")


class Refused(CircuitOpen, pybreaker.CircuitBreakerError):
    """The circuit is open: the call was not made."""


class Forced(StrEnum):
    """What an operator may decide instead of the breaker."""

    NO = "auto"
    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True, kw_only=True)
class Rules:
    """When to open, and how to find back. The defaults are those of the incident report's setting.

    Attributes:
        window: how many of the last calls are looked at.
        failure_rate: share of failures, in percent, at which the circuit opens.
        min_calls: no decision before so many calls; more than the window means the window.
        open_s: how long it stays open, in seconds.
        half_open_calls: how many calls are let through to decide what comes next.
        slow_call_s: a call that takes longer is slow, in seconds; 0 for none. See `Call.begin`.
        slow_rate: share of slow calls, in percent, at which the circuit opens.
        permit_s: a call let through when half-open that is not back by then no longer counts, so
            that the circuit cannot stay half-open for ever; in seconds, from when it was let
            through.
    """

    window: int = 100
    failure_rate: float = 50.0
    min_calls: int = 100
    open_s: float = 5.0
    half_open_calls: int = 10
    slow_call_s: float = 0.0
    slow_rate: float = 100.0
    permit_s: float = 10.0


@dataclass(frozen=True)
class WindowRates:
    """What the window shows, in percent, and how many calls it holds."""

    calls: int
    failed: float
    slow: float


class StateLog(pybreaker.CircuitBreakerListener):
    """One log line for each change of state."""

    def state_change(
        self,
        cb: pybreaker.CircuitBreaker,
        old_state: pybreaker.CircuitBreakerState | None,
        new_state: pybreaker.CircuitBreakerState,
    ) -> None:
        """Tell it."""
        log.warning("circuit breaker %s: %s → %s", cb.name, old_state.name if old_state else "new", new_state.name)


class _Window:
    """The last results, each (failed, slow), and their sums."""

    def __init__(self, size: int) -> None:
        self._results: deque[tuple[bool, bool]] = deque(maxlen=size)
        self._failed = 0
        self._slow = 0

    def add(self, failed: bool, slow: bool) -> None:
        if len(self._results) == self._results.maxlen:
            old_failed, old_slow = self._results[0]
            self._failed -= old_failed
            self._slow -= old_slow
        self._results.append((failed, slow))
        self._failed += failed
        self._slow += slow

    def rates(self) -> WindowRates:
        calls = len(self._results)
        return WindowRates(calls, 100 * self._failed / max(1, calls), 100 * self._slow / max(1, calls))


class Call:
    """One call that was let through. Its result counts only in the state that let it through."""

    def __init__(self, state_version: int, clock: Callable[[], float]) -> None:
        self.state_version = state_version
        self._clock = clock
        self.let_in_s = self._began_s = clock()

    def begin(self) -> None:
        """Say that the guarded system is asked from now on: what came before is none of its slowness.

        Left out, the call's duration counts from when it was let through.
        """
        self._began_s = self._clock()

    def duration_s(self) -> float:
        """How long the guarded system has been asked, in seconds."""
        return self._clock() - self._began_s


class CircuitBreaker(pybreaker.CircuitBreaker):
    """Guards calls; see the module's docstring. Safe to use from many threads at once."""

    def __init__(
        self,
        name: str,
        *,
        is_failure: Callable[[BaseException], bool],
        rules: Rules | None = None,
        listeners: Sequence[pybreaker.CircuitBreakerListener] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin closed.

        Args:
            name: for logs and metrics.
            is_failure: tells the errors that speak against the guarded system; others count as
                nothing at all.
            rules: when to open.
            listeners: pybreaker's; called outside of the lock, except for state changes.
            clock: monotonic, in seconds.
        """
        self.rules = rules or Rules()
        self._is_failure = is_failure
        self._clock = clock
        self._forced = Forced.NO
        self._refused = 0
        self._state_version = 0
        self._opened_s = 0.0
        self._permits: set[Call] = set()
        self._window = _Window(self.rules.window)
        super().__init__(name=name, listeners=listeners, throw_new_error_on_trip=False)

    def is_system_error(self, exception: BaseException) -> bool:
        """The error speaks against the guarded system."""
        return self._is_failure(exception)

    def call(self, func: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call a function under guard.

        Raises:
            Refused: the circuit is open; the function was not called.
        """
        with self.calling():
            return func(*args, **kwargs)

    @contextmanager
    def calling(self) -> Iterator[Call]:
        """Guard a block. What is yielded takes note of when the call itself begins; see `Call.begin`.

        Raises:
            Refused: the circuit is open; the block was not entered.
        """
        call = self._take()
        try:
            for listener in self._listeners:
                listener.before_call(self, self.calling)
            yield call
        except BaseException as error:
            failed = self.is_system_error(error)
            self._give_back(call, failed=failed, counts=failed)
            if failed:
                for listener in self._listeners:
                    listener.failure(self, error)
            raise
        self._give_back(call, failed=False, counts=True)
        for listener in self._listeners:
            listener.success(self)

    def force(self, forced: Forced) -> None:
        """Let an operator decide: refuse all, let all through, or go back to the rules, closed.

        Forced closed, results are shown in `rates` and decide nothing. Told twice, it changes
        nothing the second time.
        """
        with self._lock:
            if forced is self._forced:
                return
            self._forced = forced
            if forced is Forced.OPEN:
                self.open()
            else:
                self.close()

    @property
    def forced(self) -> Forced:
        """What the operator has decided."""
        return self._forced

    @property
    def refused(self) -> int:
        """How many calls were refused since the breaker was made."""
        return self._refused

    def rates(self) -> WindowRates:
        """What the window of the current state shows; while it is open, what it was opened by."""
        with self._lock:
            return self._window.rates()

    def open(self) -> bool:
        """Open the circuit now."""
        with self._lock:
            self._begin()
            self._opened_s = self._clock()
            if self.current_state != pybreaker.STATE_OPEN:  # otherwise there is no change to tell of
                super().open()
            return False  # in pybreaker's words: the error that opened it is not replaced

    def half_open(self) -> None:
        """Let a few calls through from now on."""
        with self._lock:
            self._begin()
            self._window = _Window(self.rules.half_open_calls)
            super().half_open()

    def close(self) -> None:
        """Close the circuit now, with an empty window."""
        with self._lock:
            self._begin()
            self._window = _Window(self.rules.window)
            if self.current_state != pybreaker.STATE_CLOSED:
                super().close()

    def _begin(self) -> None:
        # A new generation: what is still under way belongs to the old one and no longer counts.
        self._state_version += 1
        self._permits.clear()

    def _take(self) -> Call:
        with self._lock:
            if self.current_state == pybreaker.STATE_OPEN:
                if self._stays_open():
                    raise self._refuse()
                self.half_open()
            call = Call(self._state_version, self._clock)
            if self.current_state == pybreaker.STATE_HALF_OPEN:
                self._permits = {one for one in self._permits if not self._is_overdue(one)}
                if len(self._permits) + self._window.rates().calls >= self.rules.half_open_calls:
                    raise self._refuse()
                self._permits.add(call)
            return call

    def _stays_open(self) -> bool:
        # Exactly at its end it is still open.
        return self._forced is Forced.OPEN or self._clock() - self._opened_s <= self.rules.open_s

    def _is_overdue(self, call: Call) -> bool:
        return self._clock() - call.let_in_s > self.rules.permit_s

    def _refuse(self) -> Refused:
        self._refused += 1
        return Refused()

    def _give_back(self, call: Call, *, failed: bool, counts: bool) -> None:
        with self._lock:
            if call.state_version != self._state_version:
                return
            half_open = self.current_state == pybreaker.STATE_HALF_OPEN
            if half_open and self._is_overdue(call):
                return  # taken back, whether or not somebody has asked for it since
            self._permits.discard(call)
            if counts:
                self._window.add(failed, 0 < self.rules.slow_call_s < call.duration_s())
                self._decide(half_open)

    def _decide(self, half_open: bool) -> None:
        rates = self._window.rates()
        enough = self.rules.half_open_calls if half_open else min(self.rules.min_calls, self.rules.window)
        if rates.calls < enough or self._forced is not Forced.NO:
            return
        if rates.failed >= self.rules.failure_rate or (self.rules.slow_call_s and rates.slow >= self.rules.slow_rate):
            self.open()
        elif half_open:
            self.close()
