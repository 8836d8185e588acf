"""A ratio that fell is found and reported."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from loadtest.bench import compare
from loadtest.bench.core import BARE, ISSUED
from loadtest.results import files
from tests.support.benchrun import with_ratio


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


@pytest.mark.parametrize("text", ["no json", "[]", json.dumps({"schema": 0, "groups": []})])
def test_a_file_that_is_no_result_is_reported_in_one_line(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    assert compare.main([str(path), str(path)]) == 2
    assert compare.main([str(tmp_path / "missing.json"), str(path)]) == 2
    assert str(path) in capsys.readouterr().err
