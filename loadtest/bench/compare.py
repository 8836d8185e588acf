"""Finds ratios of a result that are lower than those of an earlier one.

`python -m loadtest.bench.compare OLD.json NEW.json` exits with 1 when a ratio fell by more than a tenth.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from loadtest.bench import result
from loadtest.bench.result import KINDS
from loadtest.bench.turns import STOLEN_PERCENT

# As a share of the old ratio.
FALL = 0.1


class Key(NamedTuple):
    """The identity of a ratio.

    Attributes:
        part: of the benchmark.
        in_words: the group, one variant as a share of another, per second or per second of computing.
    """

    part: str
    in_words: str

    def __str__(self) -> str:
        return f"{self.part}, {self.in_words}"


@dataclass(frozen=True)
class Fall:
    """A ratio that is lower than it was; `new` is None where it is no longer measured."""

    key: Key
    old: float
    new: float | None

    def __str__(self) -> str:
        if self.new is None:
            return f"{self.key}: {self.old:.3g} → not measured"
        return f"{self.key}: {self.old:.3g} → {self.new:.3g} ({self.new / self.old - 1:+.0%})"


def ratios(measured: Mapping[str, Any]) -> dict[Key, float]:
    """Return the medians of a result."""
    return {
        Key(group["part"], f"{group['name']}: «{one['of']}» of «{one['to']}», {kind}"): one[kind]["median"]
        for group in measured["groups"]
        for one in group["ratios"]
        for kind in KINDS
        if kind in one
    }


def falls(old: Mapping[str, Any], new: Mapping[str, Any], *, parts: Sequence[str] = ()) -> list[Fall]:
    """Return the ratios that fell by more than a tenth, or are missing, the largest fall first.

    Args:
        old: a result.
        new: a later one.
        parts: to compare; all when empty.
    """
    before, now = ratios(old), ratios(new)
    found = [
        Fall(key, value, now.get(key))
        for key, value in before.items()
        if (not parts or key.part in parts) and now.get(key, 0.0) < (1 - FALL) * value
    ]
    return sorted(found, key=lambda fall: (fall.new or 0.0) / fall.old)


def report(found: Sequence[Fall], old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Return the comparison in words.

    Args:
        found: the ratios that fell.
        old: the earlier result.
        new: the later result.
    """
    machines = [(what, old["machine"].get(what), new["machine"].get(what)) for what in ("processors", "processor")]
    # They make the two results hard to compare.
    differences = [f"another machine: {what} was {was}, is {now}" for what, was, now in machines if was != now]
    lines = [*differences, *map(str, found)]
    if not found:
        return "\n".join([*lines, "no ratio fell by more than a tenth"])
    # Older results do not contain the stolen time.
    stolen = max((median(group.get("stolen_percent") or [0.0]) for group in new["groups"]), default=0.0)
    if stolen > STOLEN_PERCENT:
        lines.append(f"the host took {stolen:.0f} % of the processors in half of the rounds, which may explain it")
    return "\n".join([*lines, f"{len(found)} of {len(ratios(old))} ratios fell by more than a tenth"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare two files; return 1 when a ratio fell, 2 when one of them is no result."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench.compare", description=__doc__)
    parser.add_argument("old", type=Path, help="the reference")
    parser.add_argument("new", type=Path, help="the result that is judged")
    given = parser.parse_args(arguments)
    try:
        old, new = result.read(given.old), result.read(given.new)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    found = falls(old, new)
    print(report(found, old, new))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
