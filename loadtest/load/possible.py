"""When a state may have held, where each change happened at an unknown moment between two known ones."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

FROM_THE_START = -math.inf
NEVER = math.inf


@dataclass(frozen=True)
class Operated:
    """An operator's change of the coupon; it took effect at some moment between the two times.

    Attributes:
        what: `restock`, `pause`, `resume` or `close`.
        sent_s: before it began, in seconds. A change from before the run has `FROM_THE_START` twice.
        answered_s: after it was done, in seconds; `NEVER` where it is unknown whether it was done.
        pieces: how many were added by a restock.
    """

    what: str
    sent_s: float
    answered_s: float
    pieces: int = 0


class Times:
    """All moments at which a state may have held."""

    def __init__(self, spans: Iterable[tuple[float, float]]) -> None:
        """Merge the spans, which include both ends and may overlap; one that ends before it begins is ignored."""
        self._starts: list[float] = []
        self._ends: list[float] = []
        for start_s, end_s in sorted(span for span in spans if span[0] <= span[1]):
            if self._ends and start_s <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], end_s)
            else:
                self._starts.append(start_s)
                self._ends.append(end_s)

    def meet(self, from_s: float, to_s: float) -> bool:
        """Whether the state may have held at a moment from `from_s` to `to_s`, both included."""
        at = bisect_right(self._starts, to_s) - 1
        return at >= 0 and self._ends[at] >= from_s


@dataclass(frozen=True)
class Life:
    """A coupon's window and its operators' changes.

    Attributes:
        total: its pieces at the start of the run.
        opens_s: when it opens, in seconds of the history's clock.
        closes_s: when it closes, on the same clock.
        clock_error_s: maximum error of those two, in seconds.
        operated: the changes.
    """

    total: int
    opens_s: float = FROM_THE_START
    closes_s: float = NEVER
    clock_error_s: float = 0.0
    operated: Sequence[Operated] = ()

    def not_open_yet(self) -> Times:
        """Return when it may not have opened yet."""
        return Times([(-math.inf, self.opens_s + self.clock_error_s)])

    def closed(self) -> Times:
        """Return when it may have been closed: after its end, or by an operator."""
        by_operators_s = min((one.sent_s for one in self._all("close")), default=math.inf)
        return Times([(min(self.closes_s - self.clock_error_s, by_operators_s), math.inf)])

    def paused(self) -> Times:
        """Return when it may have been paused."""
        return Times((pause.sent_s, self._undone_s(pause, "resume", "close")) for pause in self._all("pause"))

    def open(self) -> Times:
        """Return when it may have been open."""
        from_s = self.opens_s - self.clock_error_s
        closed_s = min((one.answered_s for one in self._all("close")), default=math.inf)
        to_s = min(self.closes_s + self.clock_error_s, closed_s)
        created = Operated("resume", -math.inf, -math.inf)
        return Times(
            (max(one.sent_s, from_s), min(self._undone_s(one, "pause", "close"), to_s))
            for one in (created, *self._all("resume"))
        )

    def sold_out(self, gone_s: Iterable[float]) -> Times:
        """Return when it may have been sold out.

        Args:
            gone_s: for each issued piece, the earliest moment at which it can have been issued.
        """
        # At equal moments a piece is issued before others are added: both orders are possible, and this allows more.
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
        """Return the first moment at which more pieces had certainly been issued than there can have been, or None.

        Args:
            gone_s: for each issued piece, the latest moment at which it can have been issued.
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
        """Return the total at a moment, without restocks that may not have happened by then."""
        return self.total + sum(one.pieces for one in self._all("restock") if one.answered_s < at_s)

    def most_total(self, at_s: float) -> int:
        """Return the total at a moment, with every restock that may have happened by then."""
        return self.total + sum(one.pieces for one in self._all("restock") if one.sent_s <= at_s)

    def _all(self, what: str) -> list[Operated]:
        return [one for one in self.operated if one.what == what]

    def _undone_s(self, done: Operated, *by: str) -> float:
        """Return the latest moment at which a change can still have been in force."""
        later = (one.answered_s for one in self.operated if one.what in by and one.sent_s >= done.answered_s)
        return min(later, default=math.inf)
