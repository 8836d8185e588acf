"""The result of a run: one JSON file with every figure, round by round, and the ratios computed from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from couponapp import __version__
from loadtest.bench.turns import Group, Seen
from loadtest.results import files
from loadtest.results.machine import revision

# A field is added without a new number; one that goes, or changes its meaning, gets one.
SCHEMA = 1
KINDS = ANSWERS, CPU = "answers per second", "answers per CPU second"


@dataclass(frozen=True)
class Run:
    """The conditions of a run.

    Attributes:
        began_at: wall-clock time of the start.
        machine: as it was before.
        rounds: that count.
        seconds: length of a turn.
    """

    began_at: datetime
    machine: Mapping[str, Any]
    rounds: int
    seconds: float


def compose(
    run: Run, groups: Sequence[tuple[Group, Mapping[str, Seen]]], settings: Mapping[str, str]
) -> dict[str, Any]:
    """Return the result.

    Args:
        run: its conditions.
        groups: each with the figures of its variants.
        settings: of the service, without secrets.
    """
    return {
        "schema": SCHEMA,
        "version": __version__,
        "revision": revision(),
        "began_at": run.began_at.astimezone(UTC).isoformat(timespec="seconds"),
        "machine": dict(run.machine),
        "rounds": run.rounds,
        "seconds": run.seconds,
        "settings": dict(settings),
        "groups": [_group(group, seen) for group, seen in groups],
    }


def read(path: Path) -> dict[str, Any]:
    """Read a result; errors as in `loadtest.results.files.read`."""
    return files.read(path, what="result of make bench", schema=SCHEMA, needs="groups")


def spread(figures: Sequence[float]) -> dict[str, float]:
    """Return the median, and the quartiles between which the middle half of the rounds lies."""
    low, _, high = quantiles(figures, n=4, method="inclusive") if len(figures) > 1 else [figures[0]] * 3
    return {"median": _rounded(median(figures)), "low": _rounded(low), "high": _rounded(high)}


def ratio(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return one variant as a share of another, computed round by round; more is better in both kinds.

    Args:
        one: a variant of the result.
        other: another one of the same group.
    """
    shares = {
        ANSWERS: zip(one["rates"], other["rates"], strict=True),
        CPU: zip(total_cpu_ms(other), total_cpu_ms(one), strict=True),
    }
    # The processor's clock ticks every 10 ms: a turn too short for it seems to have used nothing.
    found = {kind: [over / under for over, under in pairs if under > 0] for kind, pairs in shares.items()}
    return {kind: spread(figures) for kind, figures in found.items() if figures}


def total_cpu_ms(variant: Mapping[str, Any]) -> list[float]:
    """Return the computing time of all servers per response, round by round, in milliseconds."""
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
    """Round to four significant digits: no figure of a benchmark has more."""
    return float(f"{figure:.4g}")
