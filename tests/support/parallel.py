"""Several test processes side by side (pytest-xdist): who runs what, which tests run alone, and how all end.

The tests of a file run in one process, one after the other, so that they share the servers of the file.
Files start in the order of their names: acceptance first, so that the quick ones fill up the end.

A test that measures time and cannot be made indifferent to what else the machine does is marked
`alone`. These tests come last, in one process, and the others wait meanwhile.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]  # brings no types

from tests.support.servers import ROOT

ALONE = "alone"


class ByFile(LoadScopeScheduling):  # type: ignore[misc]
    """Gives each process one file after the other, and one of them all tests that run alone."""

    def _split_scope(self, nodeid: str) -> str:
        return ALONE if nodeid.endswith(f"@{ALONE}") else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByFile:
    """Distribute by file."""
    config.option.loadscopereorder = False
    return ByFile(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests that run alone at the end."""
    for item in items:
        if item.get_closest_marker(ALONE):
            item.add_marker(pytest.mark.xdist_group(ALONE))
    items.sort(key=lambda item: item.get_closest_marker(ALONE) is not None)


class Room:
    """Where all tests of a run are: any number of ordinary ones at a time, or one test alone.

    Two locks of the file system: whoever enters takes the door first, and whoever wants to be alone keeps the door
    while it waits for the room to become empty. So those that come later do not overtake it.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._door, self._room = (os.open(directory / name, os.O_CREAT | os.O_RDWR) for name in ("door", "room"))

    @contextmanager
    def entered(self, *, alone: bool) -> Iterator[None]:
        """Be in the room until the block ends; wait until that is possible."""
        fcntl.flock(self._door, fcntl.LOCK_EX)
        fcntl.flock(self._room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        if not alone:
            fcntl.flock(self._door, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(self._room, fcntl.LOCK_UN)
            fcntl.flock(self._door, fcntl.LOCK_UN)


_ROOM = pytest.StashKey[Room]()


def pytest_configure(config: pytest.Config) -> None:
    """Open the room that all test processes share, and treat TERM like Ctrl-C: leave no server behind."""
    if hasattr(config, "workerinput"):
        config.stash[_ROOM] = Room(ROOT / "var" / "tests")
    signal.signal(signal.SIGTERM, partial(_end, config))
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def _end(config: pytest.Config, *_: object) -> None:
    if config.pluginmanager.has_plugin("dsession"):  # this process only distributes: each of the others has servers
        for process in psutil.Process().children():
            process.terminate()
    pytest.exit("ended by TERM")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Run a test in the room. The wait counts as part of no test, and not towards its time-out."""
    room = item.config.stash.get(_ROOM, None)
    if room is None:
        return (yield)
    with room.entered(alone=item.get_closest_marker(ALONE) is not None):
        return (yield)
