"""The tables of a result."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from statistics import mean, median
from typing import Any

from loadtest.bench import core, guards
from loadtest.bench.result import ANSWERS, CPU, ratio
from loadtest.bench.servers import ROLES
from loadtest.results.tables import Table

# A heading, and for a variant the two names whose ratio is shown, if any.
Column = tuple[str, Callable[[str], tuple[str, str] | None]]


def figures_of(group: Mapping[str, Any]) -> Table:
    """Return one row per variant: responses per second with their spread, computing time, and ratios.

    Args:
        group: of a result.
    """
    columns = _columns(group)
    rows = [["", "answers/s", "middle half", "CPU ms", *(heading for heading, _ in columns), f"{columns[0][0]}, CPU"]]
    for name, one in group["variants"].items():
        rates = one["answers_per_s"]
        rows.append(
            [
                name,
                f"{rates['median']:.0f}",
                f"{rates['low']:.0f} to {rates['high']:.0f}",
                f"{one['cpu_ms_per_answer']['median']:.2f}",
                *(_ratio(group, compared(name), ANSWERS) for _, compared in columns),
                _ratio(group, columns[0][1](name), CPU),
            ]
        )
    return rows


def processes_of(group: Mapping[str, Any]) -> Table:
    """Return one row per variant: computing time per response and memory per process, by role.

    Args:
        group: of a result.
    """
    rows = [["", *(f"{role} CPU ms" for role in ROLES), *(f"{role} MB" for role in ROLES)]]
    for name, one in group["variants"].items():
        cpu = [f"{median(one['cpu_ms'][role]):.2f}" for role in ROLES]
        rows.append([name, *cpu, *(_memory(one["memory"][role]["mb"]) for role in ROLES)])
    return rows


def _columns(group: Mapping[str, Any]) -> Sequence[Column]:
    if group["part"] == "core":
        return [_of(base) for base in (core.BARE, core.FOR_UPDATE, core.REDIS_STOCK)]
    if group["part"] == "guards":
        return [("with the guard", lambda name: None if name == guards.ALL else (guards.ALL, name))]
    return [_of(group["ratios"][0]["to"])]


def _of(base: str) -> Column:
    short = re.split(r", | \+ ", base)[0]
    return f"of {short}", lambda name: None if name == base else (name, base)


def _ratio(group: Mapping[str, Any], compared: tuple[str, str] | None, kind: str) -> str:
    if compared is None:
        return ""
    one, other = (group["variants"][name] for name in compared)
    found = ratio(one, other).get(kind)
    return f"{found['median']:.2f} ({found['low']:.2f} to {found['high']:.2f})" if found else "–"


def _memory(mb: Sequence[float]) -> str:
    return f"{len(mb)} × {mean(mb):.0f}" if mb else "–"
