"""The result of a run: one JSON file with every figure, round by round, and the ratios taken from them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from couponapp import __version__
from loadtest.bench.turns import Group, Seen
from loadtest.load import record

# A field is added without a new number; one that goes, or changes its meaning, gets one.
SCHEMA = 1
ANSWERS, CPU = "answers per second", "answers per CPU second"
KINDS = (ANSWERS, CPU)
_NUMBERS = re.compile(r"\[[0-9.,e+\s-]*\]")


@dataclass(frozen=True)
class Run:
    """What was asked for.

    Attributes:
        began_at: when.
        machine: as it was before.
        rounds: that count.
        seconds: the length of a turn.
    """

    began_at: datetime
    machine: Mapping[str, Any]
    rounds: int
    seconds: float


def compose(
    run: Run, groups: Sequence[tuple[Group, Mapping[str, Seen]]], settings: Mapping[str, str]
) -> dict[str, Any]:
    """The whole result.

    Args:
        run: what was asked for.
        groups: each with what its variants have shown.
        settings: of the service, without secrets.
    """
    return {
        "schema": SCHEMA,
        "version": __version__,
        "revision": record.revision(),
        "began_at": run.began_at.astimezone(UTC).isoformat(timespec="seconds"),
        "machine": dict(run.machine),
        "rounds": run.rounds,
        "seconds": run.seconds,
        "settings": dict(settings),
        "groups": [_group(group, seen) for group, seen in groups],
    }


def described(machine: Mapping[str, Any]) -> dict[str, Any]:
    """A machine as it may be published: the system's version without the tag of whoever has built it."""
    kernel = re.match(r"\S+ [0-9]+(\.[0-9]+)?", machine["system"])
    return {**machine, "system": kernel[0] if kernel else machine["system"]}


def write(path: Path, result: Mapping[str, Any]) -> None:
    """Leave it as a file; its directory is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, ensure_ascii=False, indent=1, allow_nan=False)
    # The figures of all rounds on one line: people read the differences between two such files.
    text = _NUMBERS.sub(lambda numbers: " ".join(numbers[0].split()), text)
    path.write_text(text + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """A result that was written before; errors as in `loadtest.load.record.read_written`."""
    return record.read_written(path, what="result of make bench", schema=SCHEMA, needs="groups")


def spread(figures: Sequence[float]) -> dict[str, float]:
    """Median, and the quartiles between which the middle half of the rounds lies."""
    low, _, high = quantiles(figures, n=4, method="inclusive") if len(figures) > 1 else [figures[0]] * 3
    return {"median": _rounded(median(figures)), "low": _rounded(low), "high": _rounded(high)}


def ratio(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """One variant as a share of another, round by round, and then the median; more is better in both kinds.

    Args:
        one: a variant of the result.
        other: another one of the same group.
    """
    shares = {
        ANSWERS: zip(one["rates"], other["rates"], strict=True),
        CPU: zip(total_cpu_ms(other), total_cpu_ms(one), strict=True),
    }
    # A turn too short for the processor's clock, which ticks every 10 ms, has used nothing: it tells nothing.
    found = {kind: [over / under for over, under in pairs if under > 0] for kind, pairs in shares.items()}
    return {kind: spread(figures) for kind, figures in found.items() if figures}


def total_cpu_ms(variant: Mapping[str, Any]) -> list[float]:
    """Computing time of all servers per answer, round by round, in milliseconds."""
    return [sum(one) for one in zip(*variant["cpu_ms"].values(), strict=True)]


def _group(group: Group, seen: Mapping[str, Seen]) -> dict[str, Any]:
    variants = {name: _variant(one) for name, one in seen.items()}
    return {
        "part": group.part,
        "name": group.name,
        "stolen_percent": [_rounded(figure) for figure in next(iter(seen.values())).stolen],
        "variants": variants,
        "ratios": [{"of": one, "to": other, **ratio(variants[one], variants[other])} for one, other in group.ratios],
    }


def _variant(seen: Seen) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "rates": [_rounded(rate) for rate in seen.rates],
        "cpu_ms": {role: [_rounded(figure) for figure in figures] for role, figures in seen.cpu_ms.items()},
        "memory": {role: asdict(held) for role, held in seen.memory.items()},
    }
    return {"answers_per_s": spread(shown["rates"]), "cpu_ms_per_answer": spread(total_cpu_ms(shown)), **shown}


def _rounded(figure: float) -> float:
    """Four digits that count: no figure of a benchmark has more."""
    return float(f"{figure:.4g}")
