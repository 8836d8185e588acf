"""The verdict on a fault, and its report."""

from __future__ import annotations

from dataclasses import replace

import pytest

from loadtest.faults.verdict import HEADINGS, MAX_SHOWN, Verdict, skipped, table


def test_a_fault_that_cannot_be_run_is_skipped_with_a_reason_but_not_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    verdict = skipped("disk full", "503", "needs a C compiler")
    assert (verdict.word, verdict.broken) == ("skipped", [])
    assert "needs a C compiler" in verdict.report()
    monkeypatch.setenv("CI", "true")
    assert skipped("disk full", "503", "needs a C compiler").word == "BROKEN"


def test_a_broken_promise_breaks_the_verdict_and_the_first_of_many_are_shown() -> None:
    lines = [f"promise {number}" for number in range(30)]
    broken = Verdict("Redis gone", "429", "seen", "bound", lines, waited_ms=3.4)
    assert broken.word == "BROKEN"
    shown = broken.report().splitlines()
    assert shown[0] == "BROKEN  Redis gone: seen (3 ms waits for a processor)"
    assert [line.strip() for line in shown[1:]] == lines[:MAX_SHOWN]


def test_the_table_has_each_verdict_under_the_headings() -> None:
    kept = Verdict("disk full", "503", "12 ISSUED", "1.5 s", [], 0.0)
    heading, *rows = table([kept, replace(kept, fault="clock", broken=["x"])]).splitlines()
    assert heading.split() == HEADINGS
    assert [(row.split()[0], row.split()[-1]) for row in rows] == [("disk", "ok"), ("clock", "BROKEN")]
