"""A result of the benchmark with made-up figures; tests make it worse."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

from loadtest.bench import result
from loadtest.bench.core import BARE, FOR_UPDATE, ISSUED, REDIS_STOCK, SOLD_OUT
from loadtest.bench.guards import ALL
from loadtest.bench.result import ANSWERS, Run
from loadtest.bench.servers import Memory, Web
from loadtest.bench.turns import Group, Seen, Variant

RUN = Run(
    datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    {
        "processors": 2,
        "processor": "Example 1 GHz",
        "memory_bytes": 8 * 2**30,
        "system": "Linux 6",
        "python": "3.11.7",
        "load_average_before": [0.1, 0.2, 0.3],
    },
    rounds=3,
    seconds=0.7,
)
MEMORY = {"web": Memory("pss", [41.0, 39.0]), "postgres": Memory("pss", [9.0, 3.0]), "redis": Memory("pss", [5.0])}


def seen(rates: list[float], cpu_ms: list[float]) -> Seen:
    """Return a variant whose web processes used half of the time, and PostgreSQL the rest."""
    half = [figure / 2 for figure in cpu_ms]
    return Seen(rates, {"web": half, "postgres": half, "redis": [0.0] * len(half)}, [0.5] * len(half), MEMORY)


def group(part: str, name: str, ratios: list[tuple[str, str]], **shown: Seen) -> tuple[Group, dict[str, Seen]]:
    nowhere = Web(0, {})
    variants = [Variant(one, nowhere, lambda _: "", 200) for one in shown]
    return Group(part, name, variants, ratios), shown


def good_result() -> dict[str, Any]:
    """Return a result in which the second round was slow for all variants."""
    core = {
        BARE: seen([100.0, 10.0, 200.0], [1.0, 1.0, 1.0]),
        ISSUED: seen([50.0, 5.0, 80.0], [2.0, 4.0, 2.0]),
        SOLD_OUT: seen([80.0, 8.0, 160.0], [1.25, 1.25, 1.25]),
        FOR_UPDATE: seen([25.0, 1.0, 40.0], [4.0, 4.0, 4.0]),
        REDIS_STOCK: seen([50.0, 5.0, 80.0], [2.0, 2.0, 2.0]),
    }
    guarded = {ALL: seen([90.0, 9.0, 80.0], [2.0, 2.0, 2.0]), "without it": seen([100.0, 10.0, 100.0], [1.0] * 3)}
    growth = {"1": seen([6.0, 6.0, 6.0], [2.0] * 3), "2": seen([8.0, 10.0, 12.0], [2.0] * 3)}
    groups = [
        group("core", "baselines", [(ISSUED, BARE), (SOLD_OUT, BARE), (ISSUED, FOR_UPDATE)], **core),
        group("guards", "issued", [(ALL, "without it")], **guarded),
        group("growth", "by number", [("1", "2")], **growth),
    ]
    return result.compose(RUN, groups, {"COUPON_LIMIT_USER": "5/minute"})


def with_ratio(measured: dict[str, Any], number: int, share: float) -> dict[str, Any]:
    """Return the same result with the first ratio of one group multiplied by a share."""
    changed = copy.deepcopy(measured)
    spread = changed["groups"][number]["ratios"][0][ANSWERS]
    spread.update({name: figure * share for name, figure in spread.items()})
    return changed
