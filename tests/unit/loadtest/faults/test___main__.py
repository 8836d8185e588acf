"""`make faults` runs every fault, and gives a busy machine a second chance and a quiet one none."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from loadtest.faults import __main__ as faults
from loadtest.faults import full_speed, on_notifications
from loadtest.faults.host_load import BUSY_MS
from loadtest.faults.verdict import Verdict

BROKEN_WHEN_BUSY = Verdict("", "", "", "", ["late"], BUSY_MS + 1)
BROKEN_WHEN_QUIET = Verdict("", "", "", "", ["late"], BUSY_MS)
KEPT = Verdict("", "", "", "", [], BUSY_MS + 1)


def test_no_fault_is_lost_because_another_has_its_name() -> None:
    lists = [*(module.FAULTS for module in faults.ON_SERVERS), full_speed.FAULTS, on_notifications.FAULTS]
    assert len(faults.CASES) == sum(map(len, lists))


@pytest.mark.parametrize(
    ("verdicts", "counts", "runs"),
    [
        ([KEPT], KEPT, 1),
        ([BROKEN_WHEN_QUIET], BROKEN_WHEN_QUIET, 1),
        ([BROKEN_WHEN_BUSY, KEPT], KEPT, 2),
        ([BROKEN_WHEN_BUSY, BROKEN_WHEN_QUIET], BROKEN_WHEN_QUIET, 2),
        ([BROKEN_WHEN_BUSY, BROKEN_WHEN_BUSY], BROKEN_WHEN_BUSY, 2),
    ],
)
def test_a_promise_that_breaks_on_a_busy_machine_is_judged_by_a_second_run_and_never_by_a_third(
    verdicts: list[Verdict], counts: Verdict, runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "QUIET_TIMEOUT_S", 0.0)
    left = list(verdicts)
    case: Callable[[], Verdict] = lambda: left.pop(0)  # noqa: E731  # one line is enough
    assert faults.judged(case) is counts
    assert len(verdicts) - len(left) == runs


def test_a_name_that_no_fault_has_is_refused_with_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        faults.main(["--only", "no such fault"])
    assert stopped.value.code == 2
    assert next(iter(faults.CASES)) in capsys.readouterr().err
