"""The circuit breaker: after too many failures it refuses calls for a while, then lets a few through.

It has pybreaker's states, listeners and exceptions and the semantics of resilience4j (as documented
under «CircuitBreaker», and as observed): a window of the last calls instead of consecutive failures,
`>=` at the threshold, a bounded number of calls when half-open. Unlike stock pybreaker it does not hold
its lock during the guarded call, which would serialise all callers.
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
    """An operator's setting: the circuit is held open or closed, or follows its rules."""

    NO = "auto"
    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True, kw_only=True)
class Rules:
    """When the circuit opens and closes. The defaults are those of the incident report.

    Attributes:
        window: how many of the last calls count.
        failure_rate: the share of failures at which the circuit opens, in percent.
        min_calls: results in the window before the first decision; at most the window's size counts.
        open_s: how long the circuit stays open, in seconds.
        half_open_calls: how many calls a half-open circuit lets through before it decides.
        slow_call_s: a longer call is slow, in seconds; 0: none is. See `Call.begin`.
        slow_rate: the share of slow calls at which the circuit opens, in percent.
        permit_s: how long a call of a half-open circuit may take, in seconds from its admission. After
            that its permit is free again, so that lost calls cannot keep the circuit half-open.
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
    """The window's number of calls, and the shares of failed and slow ones, in percent."""

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
        """Log the change."""
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
    """One admitted call. Its result counts only in the state that admitted it."""

    def __init__(self, state_version: int, clock: Callable[[], float]) -> None:
        self.state_version = state_version
        self._clock = clock
        self.admitted_s = self._began_s = clock()

    def begin(self) -> None:
        """Start the call's duration now, so that earlier waits do not count as slowness of the guarded system.

        Without this call the duration starts at admission.
        """
        self._began_s = self._clock()

    def duration_s(self) -> float:
        """Return the call's duration so far, in seconds."""
        return self._clock() - self._began_s


class CircuitBreaker(pybreaker.CircuitBreaker):
    """Guards calls as the module's docstring says. Safe for concurrent use."""

    def __init__(
        self,
        name: str,
        *,
        is_failure: Callable[[BaseException], bool],
        rules: Rules | None = None,
        listeners: Sequence[pybreaker.CircuitBreakerListener] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start closed.

        Args:
            name: for logs and metrics.
            is_failure: whether an error is a failure of the guarded system; other errors do not count at
                all.
            rules: when to open and to close.
            listeners: pybreaker's; called without the lock, except for state changes.
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
        """Return whether an error is a failure of the guarded system."""
        return self._is_failure(exception)

    def call(self, func: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call a function through the circuit breaker.

        Raises:
            Refused: the circuit is open; the function was not called.
        """
        with self.calling():
            return func(*args, **kwargs)

    @contextmanager
    def calling(self) -> Iterator[Call]:
        """Run a block through the circuit breaker; yields the admitted call (see `Call.begin`).

        Raises:
            Refused: the circuit is open; the block was not entered.
        """
        call = self._admit()
        try:
            for listener in self._listeners:
                listener.before_call(self, self.calling)
            yield call
        except BaseException as error:
            failed = self.is_system_error(error)
            self._record(call, failed=failed, counts=failed)
            if failed:
                for listener in self._listeners:
                    listener.failure(self, error)
            raise
        self._record(call, failed=False, counts=True)
        for listener in self._listeners:
            listener.success(self)

    def force(self, forced: Forced) -> None:
        """Apply an operator's setting: hold the circuit open or closed, or return to the rules, closed.

        While the circuit is held closed, results appear in `rates` and decide nothing. Repeating the
        current setting has no effect.
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
        """The operator's current setting."""
        return self._forced

    @property
    def refused(self) -> int:
        """Number of calls refused since construction."""
        return self._refused

    def rates(self) -> WindowRates:
        """Return the rates of the current window; while the circuit is open, those that opened it."""
        with self._lock:
            return self._window.rates()

    def open(self) -> bool:
        """Open the circuit now."""
        with self._lock:
            self._start_state()
            self._opened_s = self._clock()
            if self.current_state != pybreaker.STATE_OPEN:  # listeners hear of changes only
                super().open()
            return False  # pybreaker's signal that the caller gets its own error

    def half_open(self) -> None:
        """Let a few calls through from now on."""
        with self._lock:
            self._start_state()
            self._window = _Window(self.rules.half_open_calls)
            super().half_open()

    def close(self) -> None:
        """Close the circuit now, with an empty window."""
        with self._lock:
            self._start_state()
            self._window = _Window(self.rules.window)
            if self.current_state != pybreaker.STATE_CLOSED:
                super().close()

    def _start_state(self) -> None:
        # Calls under way belong to the old version; their results no longer count.
        self._state_version += 1
        self._permits.clear()

    def _admit(self) -> Call:
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
        # At exactly `open_s` it is still open, as in resilience4j.
        return self._forced is Forced.OPEN or self._clock() - self._opened_s <= self.rules.open_s

    def _is_overdue(self, call: Call) -> bool:
        return self._clock() - call.admitted_s > self.rules.permit_s

    def _refuse(self) -> Refused:
        self._refused += 1
        return Refused()

    def _record(self, call: Call, *, failed: bool, counts: bool) -> None:
        with self._lock:
            if call.state_version != self._state_version:
                return
            half_open = self.current_state == pybreaker.STATE_HALF_OPEN
            if half_open and self._is_overdue(call):
                return  # its permit was free again, whether or not another call has taken it
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
