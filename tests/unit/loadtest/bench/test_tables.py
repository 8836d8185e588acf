"""Each part of a result has a table of its own kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loadtest.bench import tables
from loadtest.bench.core import BARE, ISSUED
from loadtest.bench.guards import ALL
from loadtest.results.tables import Table


def row(table: Table, name: str) -> Sequence[str]:
    return next(cells for cells in table if cells[0] == name)


def test_each_part_has_a_table_of_its_own_kind(measured: dict[str, Any]) -> None:
    core, guarded, growth = (tables.figures_of(one) for one in measured["groups"])
    assert core[0][4:] == ["of bare route", "of FOR UPDATE", "of Redis stock", "of bare route, CPU"]
    assert row(core, ISSUED)[1:5] == ["50", "28 to 65", "2.00", "0.50 (0.45 to 0.50)"]
    assert row(core, BARE)[4] == ""
    assert row(guarded, "without it")[4:] == ["0.90 (0.85 to 0.90)", "0.50 (0.50 to 0.50)"]
    assert row(guarded, ALL)[4:] == ["", ""]
    assert growth[0][4] == "of 2"
    assert row(tables.processes_of(measured["groups"][0]), ISSUED)[1:] == [
        *("1.00", "1.00", "0.00"),
        *("2 × 40", "2 × 6", "1 × 5"),
    ]
