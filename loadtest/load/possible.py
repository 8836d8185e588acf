"""When something may have been so, where each change happened at an unknown moment between two known ones."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Span = tuple[float, float]

FROM_THE_START = -math.inf
NEVER = math.inf


@dataclass(frozen=True)
class Operated:
    """What an operator has done to the coupon; it took effect at some moment between the two times.

    Attributes:
        what: `restock`, `pause`, `resume` or `close`.
        sent_s: before it was begun, in seconds. What was so before the run has `FROM_THE_START` twice.
        answered_s: after it was done, in seconds; `NEVER` where nobody knows whether it was done.
        pieces: how many more, at a restock.
    """

    what: str
    sent_s: float
    answered_s: float
    pieces: int = 0


class Times:
    """All moments at which something may have been so."""

    def __init__(self, spans: Iterable[Span]) -> None:
        """Keep the spans, both ends included; they may overlap, and those that end before they begin are none."""
        self._starts: list[float] = []
        self._ends: list[float] = []
        for start_s, end_s in sorted(span for span in spans if span[0] <= span[1]):
            if self._ends and start_s <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], end_s)
            else:
                self._starts.append(start_s)
                self._ends.append(end_s)

    def meet(self, from_s: float, to_s: float) -> bool:
        """It may have been so at a moment from `from_s` to `to_s`, both included."""
        at = bisect_right(self._starts, to_s) - 1
        return at >= 0 and self._ends[at] >= from_s


@dataclass(frozen=True)
class Life:
    """A coupon's window and what operators did to it.

    Attributes:
        total: its pieces at the start of the run.
        opens_s: when it opens, in seconds of the history's clock.
        closes_s: when it closes, likewise.
        clock_error_s: how far those two may be off.
        operated: what operators did.
    """

    total: int
    opens_s: float = FROM_THE_START
    closes_s: float = NEVER
    clock_error_s: float = 0.0
    operated: Sequence[Operated] = ()

    def not_open_yet(self) -> Times:
        """When the opening may not have come."""
        return Times([(-math.inf, self.opens_s + self.clock_error_s)])

    def closed(self) -> Times:
        """When it may have been closed: past its end, or for good."""
        by_operators_s = min((one.sent_s for one in self._all("close")), default=math.inf)
        return Times([(min(self.closes_s - self.clock_error_s, by_operators_s), math.inf)])

    def paused(self) -> Times:
        """When it may have been paused."""
        return Times((pause.sent_s, self._undone_s(pause, "resume", "close")) for pause in self._all("pause"))

    def open(self) -> Times:
        """When it may have been open."""
        from_s = self.opens_s - self.clock_error_s
        closed_s = min((one.answered_s for one in self._all("close")), default=math.inf)
        to_s = min(self.closes_s + self.clock_error_s, closed_s)
        created = Operated("resume", -math.inf, -math.inf)
        return Times(
            (max(one.sent_s, from_s), min(self._undone_s(one, "pause", "close"), to_s))
            for one in (created, *self._all("resume"))
        )

    def sold_out(self, gone_s: Iterable[float]) -> Times:
        """When the last piece may have been gone.

        Args:
            gone_s: for each piece that was issued the earliest moment at which it can have been.
        """
        # At one moment a piece goes before others come: both orders are possible, and this one allows more.
        steps = [(at_s, 0, -1) for at_s in gone_s]
        steps += [(one.answered_s, 1, one.pieces) for one in self._all("restock")]
        spans, left = [], self.total
        since_s = -math.inf if left <= 0 else None
        for at_s, _, pieces in sorted(steps):
            left += pieces
            if left <= 0 and since_s is None:
                since_s = at_s
            elif left > 0 and since_s is not None:
                spans.append((since_s, at_s))
                since_s = None
        return Times([*spans, *([(since_s, math.inf)] if since_s is not None else [])])

    def oversold_s(self, gone_s: Iterable[float]) -> float | None:
        """The first moment at which more pieces were surely gone than there can have been, or None.

        Args:
            gone_s: for each piece that was issued the latest moment at which it can have been.
        """
        steps = [(at_s, 1, -1) for at_s in gone_s]
        steps += [(one.sent_s, 0, one.pieces) for one in self._all("restock")]
        left = self.total
        for at_s, _, pieces in sorted(steps):
            left += pieces
            if left < 0:
                return at_s
        return None

    def least_total(self, at_s: float) -> int:
        """The total at a moment, without restocks that may not have happened by then."""
        return self.total + sum(one.pieces for one in self._all("restock") if one.answered_s < at_s)

    def most_total(self, at_s: float) -> int:
        """The total at a moment, with every restock that may have happened by then."""
        return self.total + sum(one.pieces for one in self._all("restock") if one.sent_s <= at_s)

    def _all(self, what: str) -> list[Operated]:
        return [one for one in self.operated if one.what == what]

    def _undone_s(self, done: Operated, *by: str) -> float:
        """The latest moment at which what was done can still have been in force."""
        later = (one.answered_s for one in self.operated if one.what in by and one.sent_s >= done.answered_s)
        return min(later, default=math.inf)
