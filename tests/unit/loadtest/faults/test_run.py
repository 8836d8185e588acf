"""A fault is run where the machine has what it needs."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest

from loadtest.faults.fault import Fault, Promises, answers
from loadtest.faults.run import run

FAULT = Fault("", lambda _: nullcontext(), Promises("503", answers(201, 503)))


def test_a_fault_is_not_run_where_the_machine_lacks_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    verdict = run(replace(FAULT, lacks=lambda: "PgBouncer is not installed"))
    assert (verdict.word, verdict.seen) == ("skipped", "PgBouncer is not installed")
