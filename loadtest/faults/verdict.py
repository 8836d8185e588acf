"""The result of a fault run, as a row of a table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.results.tables import as_text

# Broken promises that are printed: the first lines say where to look.
MAX_SHOWN = 10
HEADINGS = ["fault", "expected", "seen", "bound", "verdict"]


@dataclass(frozen=True)
class Verdict:
    """The result of one fault.

    Attributes:
        fault: its name.
        expected: in words.
        seen: what was measured.
        bound: the bounds of `seen`, in the same order.
        broken: every broken promise, one sentence each.
        waited_ms: how long 5 ms of our work waited for a processor meanwhile, at p99.
        ran: whether the fault was run at all.
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
        """The verdict in one word."""
        return "BROKEN" if self.broken else "ok" if self.ran else "skipped"

    def report(self) -> str:
        """Return the lines that are printed at once, broken promises included."""
        waited = f" ({self.waited_ms:.0f} ms waits for a processor)" if self.ran else ""
        lines = [f"{self.word:<8}{self.fault}: {self.seen}{waited}"]
        return "\n        ".join([*lines, *self.broken[:MAX_SHOWN]])


def skipped(fault: str, expected: str, why: str) -> Verdict:
    """Return the verdict on a fault that this machine cannot run; in CI nothing may be skipped.

    Args:
        fault: its name.
        expected: in words.
        why: what is missing.
    """
    broken = [f"{why}; CI may skip nothing"] if os.environ.get("CI") else []
    return Verdict(fault, expected, why, "-", broken, 0.0, ran=False)


def table(verdicts: Sequence[Verdict]) -> str:
    """Return all verdicts in columns."""
    rows = [[one.fault, one.expected, one.seen, one.bound, one.word] for one in verdicts]
    return as_text([HEADINGS, *rows], left=len(HEADINGS))
