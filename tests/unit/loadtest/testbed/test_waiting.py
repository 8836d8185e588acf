"""Waiting ends with the value, with the time, or with the process that is waited for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from couponapp.local.processes import Child
from loadtest.testbed.waiting import wait_until, wait_until_ready


def test_it_returns_what_the_condition_returned() -> None:
    values = iter([None, "", "ready"])
    assert wait_until(lambda: next(values), "never", timeout_s=20) == "ready"


def test_without_time_the_condition_is_still_asked_once() -> None:
    assert wait_until(lambda: 1, "never", timeout_s=-1.0) == 1
    with pytest.raises(RuntimeError, match="it did not start"):
        wait_until(lambda: None, "it did not start", timeout_s=-1.0)


def test_nothing_is_waited_for_once_the_process_has_ended(tmp_path: Path) -> None:
    child = Child("ends", tmp_path, [sys.executable, "-S", "-c", ""])
    with pytest.raises(RuntimeError, match="it has ended"):
        wait_until(lambda: None, "it has ended", timeout_s=60, child=child)
    child.end()


def test_a_server_that_does_not_get_ready_is_ended_and_its_log_is_in_the_error(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("no such port")
    child = Child("ends", tmp_path, [sys.executable, "-S", "-c", ""])
    with pytest.raises(RuntimeError, match="it does not start; its log: no such port"):
        wait_until_ready(child, lambda: False, "it does not start", log=log)
    assert child.process.poll() is not None
