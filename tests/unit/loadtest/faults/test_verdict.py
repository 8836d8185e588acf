"""The verdict on a fault, and its report."""

from __future__ import annotations

import pytest

from loadtest.faults.verdict import skipped


def test_a_fault_that_cannot_be_run_is_skipped_with_a_reason_but_not_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    verdict = skipped("disk full", "503", "needs a C compiler")
    assert (verdict.word, verdict.broken) == ("skipped", [])
    assert "needs a C compiler" in verdict.report()
    monkeypatch.setenv("CI", "true")
    assert skipped("disk full", "503", "needs a C compiler").word == "BROKEN"
