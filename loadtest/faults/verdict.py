"""What became of a fault, as a row of a table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

# Of what is broken, so much is told: the first lines say what to look at.
MAX_TOLD = 10
HEADINGS = ("fault", "expected", "seen", "bound", "verdict")


@dataclass(frozen=True)
class Verdict:
    """One fault's.

    Attributes:
        fault: its name.
        expected: in words.
        seen: what was measured.
        bound: what it may be, in the same order.
        broken: every promise that was not kept, one sentence each.
        waited_ms: how long a little work of ours waited for a processor meanwhile, at p99.
        ran: whether it was let happen at all.
    """

    fault: str
    expected: str
    seen: str
    bound: str
    broken: Sequence[str]
    waited_ms: float
    ran: bool = True

    @property
    def word(self) -> str:
        """In one word."""
        return "BROKEN" if self.broken else "ok" if self.ran else "skipped"

    def tell(self) -> str:
        """At once, with what is broken."""
        waited = "" if not self.ran else f" ({self.waited_ms:.0f} ms waits for a processor)"
        lines = [f"{self.word:<8}{self.fault}: {self.seen}{waited}"]
        return "\n        ".join([*lines, *self.broken[:MAX_TOLD]])


def skipped(fault: str, expected: str, why: str) -> Verdict:
    """The verdict on a fault that this machine cannot let happen; in CI nothing may be skipped.

    Args:
        fault: its name.
        expected: in words.
        why: what is missing.
    """
    broken = [f"{why}; CI may skip nothing"] if os.environ.get("CI") else []
    return Verdict(fault, expected, why, "-", broken, 0.0, ran=False)


def table(verdicts: Sequence[Verdict]) -> str:
    """All of them, in columns."""
    rows = [HEADINGS, *((one.fault, one.expected, one.seen, one.bound, one.word) for one in verdicts)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
