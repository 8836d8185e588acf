"""Ratios, tables, the document and the verdict of `make bench`, with made-up figures."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from loadtest.bench import compare, document, result, tables
from loadtest.bench.__main__ import judged
from loadtest.bench.core import BARE, FOR_UPDATE, ISSUED, REDIS_STOCK, SOLD_OUT
from loadtest.bench.guards import ALL
from loadtest.bench.result import ANSWERS, CPU, Run
from loadtest.bench.servers import Memory, Web
from loadtest.bench.turns import Group, Seen, Variant
from loadtest.results import files
from loadtest.results.machine import publishable
from loadtest.results.tables import Table, as_markdown, as_text

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


@pytest.fixture
def measured() -> dict[str, Any]:
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


def row(table: Table, name: str) -> Sequence[str]:
    return next(cells for cells in table if cells[0] == name)


def with_ratio(measured: dict[str, Any], number: int, share: float) -> dict[str, Any]:
    """Return the same result with the first ratio of one group multiplied by a share."""
    changed = copy.deepcopy(measured)
    spread = changed["groups"][number]["ratios"][0][ANSWERS]
    spread.update({name: figure * share for name, figure in spread.items()})
    return changed


def test_a_ratio_is_computed_round_by_round_so_a_slow_moment_of_the_machine_cancels_out(
    measured: dict[str, Any],
) -> None:
    shown = measured["groups"][0]["ratios"][0]
    assert shown[ANSWERS] == {"median": 0.5, "low": 0.45, "high": 0.5}
    # Not the ratio of the medians, which would be 1.
    skewed = {ANSWERS: [10.0, 100.0, 100.0], "base": [100.0, 100.0, 400.0]}
    one, other = ({"rates": rates, "cpu_ms": {"web": [1.0] * 3}} for rates in skewed.values())
    assert result.ratio(one, other)[ANSWERS]["median"] == 0.25
    assert result.ratio(other, one)[ANSWERS]["median"] == 4


def test_more_is_better_in_both_kinds_of_ratio(measured: dict[str, Any]) -> None:
    shown = measured["groups"][0]["ratios"][0]
    assert (shown["of"], shown["to"]) == (ISSUED, BARE)
    assert shown[CPU]["median"] == 0.5  # of the bare route's answers from the same computing time
    assert measured["groups"][1]["ratios"][0][CPU]["median"] == 0.5
    assert measured["groups"][2]["ratios"][0][ANSWERS] == {"median": 0.6, "low": 0.55, "high": 0.675}


def test_a_turn_too_short_for_the_processors_clock_has_no_ratio_of_computing_time() -> None:
    one = {"rates": [10.0, 10.0], "cpu_ms": {"web": [0.0, 1.0]}}
    other = {"rates": [10.0, 10.0], "cpu_ms": {"web": [1.0, 2.0]}}
    assert result.ratio(one, other)[CPU]["median"] == 2
    assert CPU not in result.ratio({**one, "cpu_ms": {"web": [0.0, 0.0]}}, other)


def test_a_spread_is_the_middle_half_of_the_rounds_and_of_one_round_itself() -> None:
    assert result.spread([1.0, 2.0, 3.0, 4.0, 500.0]) == {"median": 3.0, "low": 2.0, "high": 4.0}
    assert result.spread([7.0]) == {"median": 7.0, "low": 7.0, "high": 7.0}


def test_a_machine_is_published_without_the_build_tag_of_its_system() -> None:
    machine = {"system": "Linux 6.12.3-of-somebody-7", "processors": 2}
    assert publishable(machine) == {"system": "Linux 6.12", "processors": 2}
    assert publishable({"system": "Other"}) == {"system": "Other"}


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


def test_a_table_is_as_wide_as_its_cells_or_markdown() -> None:
    table = [["", "answers/s"], ["bare", "3"]]
    assert as_text(table) == "      answers/s\nbare          3"
    assert as_markdown(table) == "|  | answers/s |\n| --- | ---: |\n| bare | 3 |"


def test_the_document_gets_the_figures_and_keeps_its_text(measured: dict[str, Any]) -> None:
    parts = ("machine", "core", "processes", "guards", "growth")
    empty = "\n".join(f"About {part}.\n<!-- figures: {part} -->\n<!-- end of figures -->" for part in parts)
    once = document.filled(empty, measured)
    assert "About core.\n<!-- figures: core -->\n**Baselines**" in once
    assert "2 processors (Example 1 GHz), 8 GB" in once
    assert document.filled(once, measured) == once
    with pytest.raises(ValueError, match="figures without a block: core"):
        document.filled(empty.replace("figures: core", "figures: score"), measured)


def test_the_document_shows_the_figures_of_the_reference_and_no_others() -> None:
    text = document.DOCUMENT.read_text(encoding="utf-8")
    assert document.filled(text, result.read(document.REFERENCE)) == text


def test_a_fall_of_a_tenth_is_accepted_and_a_larger_one_is_reported(measured: dict[str, Any]) -> None:
    assert compare.falls(measured, measured) == []
    assert compare.falls(measured, with_ratio(measured, 0, 0.9)) == []
    assert compare.falls(measured, with_ratio(measured, 0, 3.0)) == []
    (fall,) = compare.falls(measured, with_ratio(measured, 0, 0.88))
    assert str(fall) == (f"core, baselines: «{ISSUED}» of «{BARE}», answers per second: 0.5 → 0.44 (-12%)")
    assert compare.falls(measured, with_ratio(measured, 1, 0.5), parts=["core"]) == []


def test_a_host_that_may_have_caused_a_fall_is_reported(measured: dict[str, Any]) -> None:
    worse = copy.deepcopy(with_ratio(measured, 0, 0.5))
    assert "the host took" not in compare.report(compare.falls(measured, worse), measured, worse)
    worse["groups"][0]["stolen_percent"] = [0.1, 40.0, 30.0]
    assert "the host took 30 % of the processors" in compare.report(compare.falls(measured, worse), measured, worse)
    assert "the host took" not in compare.report([], measured, worse)


def test_a_ratio_that_is_no_longer_measured_is_a_fall(measured: dict[str, Any]) -> None:
    fewer = copy.deepcopy(measured)
    del fewer["groups"][2]
    found = compare.falls(measured, fewer)
    assert {(fall.key.part, fall.new) for fall in found} == {("growth", None)}
    assert "not measured" in str(found[0])
    assert compare.falls(fewer, measured) == []  # a new ratio has no earlier value


def test_the_largest_fall_is_reported_first(measured: dict[str, Any]) -> None:
    found = compare.falls(measured, with_ratio(with_ratio(measured, 0, 0.8), 1, 0.3))
    assert [fall.key.part for fall in found] == ["guards", "core"]


def test_the_comparison_of_two_files_exits_with_1_when_a_ratio_fell(
    measured: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    worse = with_ratio(measured, 0, 0.8)
    worse["machine"] = {**worse["machine"], "processors": 8}
    for name, one in (("old", measured), ("new", worse)):
        files.write(tmp_path / f"{name}.json", one)
    old, new = str(tmp_path / "old.json"), str(tmp_path / "new.json")
    assert compare.main([old, old]) == 0
    assert "no ratio fell" in capsys.readouterr().out
    assert compare.main([old, new]) == 1
    said = capsys.readouterr().out
    assert f"«{ISSUED}» of «{BARE}»" in said
    assert "another machine: processors was 2, is 8" in said


def test_a_result_is_read_as_it_was_written_with_all_rounds_of_a_figure_on_one_line(
    measured: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "deep" / "result.json"
    files.write(path, measured)
    assert result.read(path) == measured
    assert '"rates": [ 50.0, 5.0, 80.0 ]' in path.read_text()


@pytest.mark.parametrize("text", ["no json", "[]", json.dumps({"schema": 0, "groups": []})])
def test_a_file_that_is_no_result_is_reported_in_one_line(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    assert compare.main([str(path), str(path)]) == 2
    assert compare.main([str(tmp_path / "missing.json"), str(path)]) == 2
    assert str(path) in capsys.readouterr().err


def test_a_fall_counts_only_if_it_is_measured_twice(measured: dict[str, Any]) -> None:
    fell, other = with_ratio(measured, 0, 0.5), with_ratio(measured, 1, 0.5)
    asked: list[list[str]] = []

    def verdict(first: dict[str, Any], second: dict[str, Any]) -> int:
        def once_more(parts: Sequence[str]) -> dict[str, Any]:
            asked.append(list(parts))
            return second

        return judged(measured, first, ["core", "guards", "growth"], once_more)

    assert verdict(measured, fell) == 0
    assert asked == []
    assert verdict(fell, measured) == 0
    assert verdict(fell, other) == 0
    assert verdict(fell, fell) == 1
    assert verdict(other, other) == 1
    assert asked == [["core"], ["core"], ["core"], ["guards"]]
