"""The library in front of a process's C library: it changes disk and clock as told, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import pytest

from loadtest.faults.fault import Stage
from loadtest.faults.on_disk import full
from loadtest.testbed import preload
from loadtest.testbed.preload import Control

pytestmark = pytest.mark.skipif(bool(preload.missing()) and not os.environ.get("CI"), reason=preload.missing())

WRITE = """
import errno, os, sys
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
for data in (b"12", b"1", b"123"):
    os.lseek(file, 0, os.SEEK_SET)
    try:
        print(os.write(file, data), end=" ")
    except OSError as error:
        print(errno.errorcode[error.errno], end=" ")
"""
CLOCKS = "import time; print(time.time(), time.monotonic())"


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


@pytest.fixture
def control(tmp_path: Path, disk: Path) -> Control:
    return Control(tmp_path, disk=disk)


def printed_by(control: Control, code: str, *arguments: Path) -> list[str]:
    """Return the words that another process prints with the library in front of it."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environ = {**os.environ, **control.environ}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.split()


def test_at_first_nothing_is_changed(control: Control, disk: Path) -> None:
    assert printed_by(control, WRITE, disk / "file") == ["2", "1", "3"]
    assert control.met == 0


def test_on_a_full_disk_a_file_cannot_grow_and_can_be_overwritten(control: Control, disk: Path) -> None:
    (disk / "file").write_bytes(b"12")
    control.fill_disk()
    assert printed_by(control, WRITE, disk / "file") == ["2", "1", "ENOSPC"]
    assert control.met == 1
    control.mend_disk()
    assert printed_by(control, WRITE, disk / "file") == ["2", "1", "3"]


def test_a_file_elsewhere_has_room(control: Control, tmp_path: Path) -> None:
    control.fill_disk()
    assert printed_by(control, WRITE, tmp_path / "file") == ["2", "1", "3"]
    assert control.met == 0


def test_each_write_to_a_slow_disk_waits(control: Control, disk: Path) -> None:
    control.slow_disk(0.1)
    began_s = time.monotonic()
    assert printed_by(control, WRITE, disk / "file") == ["2", "1", "3"]
    assert time.monotonic() - began_s >= 0.3
    assert control.met == 3


@pytest.mark.parametrize("ahead_s", [3600, -3600])
def test_only_the_wall_clock_jumps(control: Control, ahead_s: int) -> None:
    control.set_clock(ahead_s)
    wall_s, monotonic_s = map(float, printed_by(control, CLOCKS))
    assert wall_s - time.time() == pytest.approx(ahead_s, abs=60)
    assert monotonic_s == pytest.approx(time.monotonic(), abs=60)


def test_a_bad_disk_that_no_process_writes_to_proves_nothing(control: Control) -> None:
    stage = Stage(cast(Any, None), 0, 0, fixture=control)
    with full(stage):
        pass
    assert stage.broken == ["no write of PostgreSQL has met the bad disk"]


def test_the_library_compiles_without_a_warning(tmp_path: Path) -> None:
    command = [preload.COMPILER, "-Wall", "-Wextra", "-Werror", "-fsyntax-only", str(preload.SOURCE)]
    subprocess.run(command, timeout=60, check=True)
