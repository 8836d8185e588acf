"""Processes that a killed supervisor left running are ended; others with a reused pid are not."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from couponapp.local.processes import Child, end_orphans
from tests.support.servers import wait_until

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def test_an_orphan_is_ended_and_its_pid_file_with_it(tmp_path: Path) -> None:
    child = Child("web", tmp_path, SLEEP)
    assert end_orphans(tmp_path) == ["web"]
    assert child.process.wait(5) == -signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


def test_an_orphan_that_ignores_its_signal_is_killed(tmp_path: Path) -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    with open(tmp_path / "log", "wb") as log:
        child = Child("web", tmp_path, [sys.executable, "-c", deaf], log=log)
    wait_until(lambda: (tmp_path / "log").stat().st_size, timeout_s=10, what="it has closed its ears")
    assert end_orphans(tmp_path, timeout_s=0.2) == ["web"]
    assert child.process.wait(5) == -signal.SIGKILL


def test_a_zombie_counts_as_ended(tmp_path: Path) -> None:
    # This process is the parent and does not reap: what has ended stays, as below a lazy init.
    child = Child("web", tmp_path, [sys.executable, "-c", "pass"])
    zombie = psutil.Process(child.process.pid)
    wait_until(lambda: zombie.status() == psutil.STATUS_ZOMBIE, timeout_s=10, what="it has ended")
    assert end_orphans(tmp_path) == []
    child.process.wait(5)


def test_another_process_with_a_reused_pid_is_left_alone(tmp_path: Path) -> None:
    stranger = subprocess.Popen(SLEEP)
    try:
        entry = {"pid": stranger.pid, "started": psutil.Process(stranger.pid).create_time() - 100, "signal": 15}
        (tmp_path / "web.pid").write_text(json.dumps(entry))
        assert end_orphans(tmp_path) == []
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait(5)


def test_a_torn_pid_file_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "web.pid").write_text("{")
    assert end_orphans(tmp_path) == []
