"""A run of these tests that is told to end in the middle leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.servers import ROOT, wait_until

GIVE_UP_S = 60.0
TESTS = ["tests/integration/test_planning.py", "tests/integration/test_cli.py"]


@pytest.mark.parametrize("processes", [[], ["-n", "2", "--dist", "loadgroup"]], ids=["one process", "two"])
def test_a_run_that_is_terminated_ends_what_it_has_started(tmp_path: Path, processes: list[str]) -> None:
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", f"--basetemp={tmp_path}/run"]
    # Servers of its own, whatever this run uses.
    environ = {**os.environ, "DATABASE_URL": "", "REDIS_URL": "", "PYTHONUNBUFFERED": "1"}
    log = tmp_path / "log"
    with open(log, "wb") as output:
        run = subprocess.Popen([*command, *processes, *TESTS], cwd=ROOT, env=environ, stdout=output, stderr=output)
    wait_until(lambda: b"PASSED" in log.read_bytes(), timeout_s=GIVE_UP_S, what="a test has passed")
    started = psutil.Process(run.pid).children(recursive=True)
    assert any("postgres" in one.name() for one in started)
    run.terminate()
    status = run.wait(GIVE_UP_S)
    left = psutil.wait_procs(started, 20.0)[1]
    for one in left:  # so that this test leaves nothing behind either
        one.kill()
    assert (status, left) == (2, []), log.read_text()
