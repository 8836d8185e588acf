"""The tables of the documents hold what the records of load runs say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loadtest.load import document
from loadtest.testbed.service import ROOT
from tests.support.loadrun import good_record

DOCUMENT = "<!-- figures: events -->\nold\n<!-- end of figures -->"


def shown(**changes: Any) -> str:
    record = good_record()
    record.update({name: {**record[name], **change} for name, change in changes.items()})
    return document.filled(DOCUMENT, [document.digest(record)], "README.md")


@pytest.mark.parametrize("name", document.HEADINGS)
def test_the_documents_show_the_figures_of_the_records_and_no_others(name: str) -> None:
    events = json.loads(document.EVENTS.read_text(encoding="utf-8"))["events"]
    text = (ROOT / name).read_text(encoding="utf-8")
    assert document.filled(text, events, name) == text
    assert document.filled(text, [{**events[0], "issued": 123_456}], name) != text


def test_a_row_shows_what_the_record_holds() -> None:
    (row,) = [line for line in shown().splitlines() if line.startswith("| `")]
    assert row == "| `threefold` | 300 / 30 s | 100 | 20 ms | 20 ms | 0 | 3.0 s | all kept |"


def test_broken_promises_and_unknown_figures_are_shown() -> None:
    assert "| 7 |" in shown(answers={"server_errors": 7})
    assert "| broken |" in shown(verdict={"kept": False})
    assert "| – |" in shown(books={"waiting": 3})


def test_a_file_that_is_no_record_is_reported_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = document.EVENTS.read_bytes()
    (tmp_path / "record.json").write_text("{}")
    assert document.main([str(tmp_path / "record.json")]) == 2
    assert "no record of make load with schema 1" in capsys.readouterr().err
    assert document.EVENTS.read_bytes() == before
