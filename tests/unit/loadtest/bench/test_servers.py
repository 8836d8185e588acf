"""What the processes of a role use: added up, and without those that have ended."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from loadtest.bench import servers


@pytest.fixture(scope="module")
def ended() -> psutil.Process:
    """A process that was there when it was found, and is no more."""
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as child:
        return psutil.Process(child.pid)


def test_memory_is_that_of_each_process_in_one_measure_the_largest_first(ended: psutil.Process) -> None:
    own = psutil.Process()
    found = servers.memory({"web": lambda: iter([own, ended]), "redis": lambda: iter(())})
    assert len(found["web"].mb) == 1
    assert 1 < found["web"].mb[0] < 10_000
    assert found["redis"].mb == []
    both = servers.memory({"web": lambda: iter([psutil.Process(own.ppid()), own])})["web"]
    assert both.mb == sorted(both.mb, reverse=True)


def test_computing_time_is_added_up_by_role(ended: psutil.Process) -> None:
    own = psutil.Process()
    once, twice = servers.cpu_s({"once": lambda: iter([own, ended]), "twice": lambda: iter([own, own])}).values()
    assert once > 0
    assert twice == pytest.approx(2 * once, rel=0.2)
