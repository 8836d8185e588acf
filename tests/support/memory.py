"""A place in memory for the files of servers that need not outlive the tests."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from couponapp.local.processes import end_orphans

MEMORY = Path("/dev/shm")
PREFIX = "couponapp-tests-"
# What the servers of one test process use at most, several times over; a container may have 64 MB.
ENOUGH_BYTES = 1 << 30


@contextmanager
def memory_directory(otherwise: Path) -> Iterator[Path]:
    """Yield a directory in memory, removed after the block, or another one where there is not enough memory.

    Args:
        otherwise: the other directory.
    """
    if not _has_room():
        yield otherwise
        return
    _remove_left_overs()
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-", dir=MEMORY) as directory:
        yield Path(directory)


def _has_room() -> bool:
    return MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= ENOUGH_BYTES


def _remove_left_overs() -> None:
    """End and remove what a run that was killed has left: nothing else frees this memory."""
    for directory in MEMORY.glob(f"{PREFIX}*-*"):
        pid = directory.name.removeprefix(PREFIX).partition("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            end_orphans(directory)
            shutil.rmtree(directory, ignore_errors=True)
