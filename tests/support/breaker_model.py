"""What the circuit breaker promises, as plainly as it can be written, and a replay against the real one.

The reference keeps every call of every state and works everything out anew from those lists, in
exact arithmetic. It has no windows, sums, generations or locks that could be wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from types import ModuleType
from typing import Any

from couponapp.errors import CircuitOpen, Unavailable
from couponapp.guards.circuit_breaker import Rules
from tests.support.clock import Clock

CLOSED, OPEN, HALF_OPEN = "closed", "open", "half-open"
TICK_S = 0.25  # a power of two, so that sums of it are exact


class Down(Unavailable):
    """The guarded system failed."""


class OurFault(Exception):
    """Nothing that speaks against the guarded system."""


class Held:
    """A call that is under way until the test ends it."""

    def __init__(self, breaker: Any) -> None:
        self._block = breaker.calling()
        self._call = self._block.__enter__()

    def begin(self) -> None:
        self._call.begin()

    def end(self, error: Exception | None = None) -> None:
        self._block.__exit__(type(error) if error else None, error, None)


@dataclass(eq=False)
class Ticket:
    """One call, as the reference sees it."""

    phase: Phase
    let_in_s: float
    began_s: float
    ended: bool = False
    counted: bool = False
    failed: bool = False
    slow: bool = False


@dataclass(eq=False)
class Phase:
    """One stay in a state."""

    state: str
    since_s: float
    tickets: list[Ticket] = field(default_factory=list)
    results: list[Ticket] = field(default_factory=list)  # those that count, in the order of their ends
    # What an open circuit shows: the results that opened it.
    opened_by: Sequence[Ticket] = ()


class Reference:
    """The promises."""

    def __init__(self, rules: Rules, clock: Callable[[], float]) -> None:
        self.rules = rules
        self.clock = clock
        self.forced = "auto"
        self.refused = 0
        self.phase = Phase(CLOSED, clock())

    def take(self) -> Ticket | None:
        """Ask to be let in; None where refused."""
        now_s, rules = self.clock(), self.rules
        if self.phase.state == OPEN:
            if self.forced == OPEN or now_s - self.phase.since_s <= rules.open_s:
                self.refused += 1
                return None
            self.phase = Phase(HALF_OPEN, now_s)
        if self.phase.state == HALF_OPEN:
            inside = [one for one in self.phase.tickets if not one.ended and not self._is_overdue(one)]
            if len(inside) + len(self.phase.results) >= rules.half_open_calls:
                self.refused += 1
                return None
        ticket = Ticket(self.phase, now_s, now_s)
        self.phase.tickets.append(ticket)
        return ticket

    def end(self, ticket: Ticket, error: Exception | None) -> None:
        """A call is back."""
        ticket.ended = True
        if ticket.phase is not self.phase or isinstance(error, OurFault):
            return
        if self.phase.state == HALF_OPEN and self._is_overdue(ticket):
            return
        ticket.failed = error is not None
        ticket.slow = self.rules.slow_call_s > 0 and self.clock() - ticket.began_s > self.rules.slow_call_s
        self.phase.results.append(ticket)
        if self.forced == "auto":
            self._decide()

    def force(self, forced: str) -> None:
        """The operator decides."""
        if forced != self.forced:
            self.forced = forced
            if forced == OPEN:
                self._open()
            else:
                self.phase = Phase(CLOSED, self.clock())

    def shown(self) -> Sequence[Ticket]:
        """The results that are looked at."""
        if self.phase.state == OPEN:
            return self.phase.opened_by
        return self.phase.results[-self.rules.window :] if self.phase.state == CLOSED else self.phase.results

    def _is_overdue(self, ticket: Ticket) -> bool:
        return self.clock() - ticket.let_in_s > self.rules.permit_s

    def _open(self) -> None:
        self.phase = Phase(OPEN, self.clock(), opened_by=self.shown())

    def _decide(self) -> None:
        half_open, shown = self.phase.state == HALF_OPEN, self.shown()
        if half_open:
            ripe = len(shown) == self.rules.half_open_calls
        else:
            ripe = len(shown) >= self.rules.min_calls or len(shown) == self.rules.window
        if not ripe:
            return
        if percent(shown, "failed") >= self.rules.failure_rate or (
            self.rules.slow_call_s > 0 and percent(shown, "slow") >= self.rules.slow_rate
        ):
            self._open()
        elif half_open:
            self.phase = Phase(CLOSED, self.clock())


def percent(results: Sequence[Ticket], what: str) -> Fraction:
    """The exact share of the results that failed, or that were slow."""
    return Fraction(100 * sum(getattr(one, what) for one in results), max(1, len(results)))


@dataclass(frozen=True)
class Step:
    """One thing that happens. `number` is how many ticks pass, or which of the calls under way is meant."""

    what: str
    number: int = 0


ERRORS: dict[str, Callable[[], Exception | None]] = {"ok": lambda: None, "fails": Down, "ignored": OurFault}


def disagreement(guards: ModuleType, rules: Rules, steps: Sequence[Step]) -> str | None:
    """Where a breaker does otherwise than the reference, or None.

    Args:
        guards: the module `couponapp.guards.circuit_breaker`, or a wrong variant of it.
        rules: when to open.
        steps: what happens, one after the other.
    """
    replay = _Replay(guards, rules)
    for number, step in enumerate(steps):
        word, _, how = step.what.partition(" ")
        replay.do(word, how, step.number)
        if (seen := replay.seen()) != (expected := replay.expected()):
            return f"step {number}, {step.what}: {seen} instead of {expected}"
    return None


class _Replay:
    """The same steps for both."""

    def __init__(self, guards: ModuleType, rules: Rules) -> None:
        self._clock = Clock()
        self._guards = guards
        self._breaker = guards.CircuitBreaker(
            "test", is_failure=lambda error: isinstance(error, Down), rules=rules, clock=self._clock
        )
        self._reference = Reference(rules, self._clock)
        # Who was let in by one of them only is under way there, and shows in `seen` or `expected`.
        self._under_way: list[tuple[Held | None, Ticket | None]] = []

    def do(self, word: str, how: str, number: int) -> None:
        under_way = self._under_way
        if word == "time":
            self._clock.now_s += number * TICK_S
        elif word == "force":
            self._breaker.force(self._guards.Forced(how))
            self._reference.force(how)
        elif word in ("take", "call"):
            held, ticket = self._take(), self._reference.take()
            if word == "call":
                self._end(how, held, ticket)
            elif held or ticket:
                under_way.append((held, ticket))
        elif under_way and word == "end":
            self._end(how, *under_way.pop(number % len(under_way)))
        elif under_way:
            held, ticket = under_way[number % len(under_way)]
            if held and ticket:
                held.begin()
                ticket.began_s = self._clock()

    def _take(self) -> Held | None:
        try:
            return Held(self._breaker)
        except CircuitOpen:
            return None

    def _end(self, how: str, held: Held | None, ticket: Ticket | None) -> None:
        error = ERRORS[how]()
        if held:
            held.end(error)
        if ticket:
            self._reference.end(ticket, error)

    def seen(self) -> tuple[Any, ...]:
        breaker, rates = self._breaker, self._breaker.rates()
        let_in = sum(held is not None for held, _ in self._under_way)
        return let_in, breaker.current_state, breaker.forced, breaker.refused, rates.calls, rates.failed, rates.slow

    def expected(self) -> tuple[Any, ...]:
        reference, shown = self._reference, self._reference.shown()
        let_in = sum(ticket is not None for _, ticket in self._under_way)
        failed, slow = float(percent(shown, "failed")), float(percent(shown, "slow"))
        return let_in, reference.phase.state, reference.forced, reference.refused, len(shown), failed, slow
