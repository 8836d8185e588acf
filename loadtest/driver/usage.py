"""What the processes of a run use of processor and memory, second by second."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil

from loadtest.driver.background import running_in_background
from loadtest.testbed.processes import Processes


@dataclass(frozen=True)
class Used:
    """What the processes of one role used in one interval.

    Attributes:
        cpu_percent: of one processor, all processes together.
        busiest_percent: of one processor, the busiest process alone.
        rss_bytes: resident memory of all together; shared memory counts in each of them.
    """

    cpu_percent: float
    busiest_percent: float
    rss_bytes: int


@dataclass(frozen=True)
class Sample:
    """Usage at one moment; processor usage is since the sample before.

    Attributes:
        at_s: seconds since the first request.
        machine_percent: of all processors together, by any process of the machine.
        roles: usage by role: web, PostgreSQL and so on.
    """

    at_s: float
    machine_percent: float
    roles: dict[str, Used]


class UsageSampler:
    """Collects samples.

    Attributes:
        start_s: when the first request is sent, by `time.perf_counter`; samples count from here.
        samples: in the order of time.
    """

    def __init__(self, processes: Processes) -> None:
        """Read the counters once, for the first sample to count from.

        Args:
            processes: by role; found anew for every sample.
        """
        self.start_s = time.perf_counter()
        self.samples: list[Sample] = []
        self._processes = processes
        self._roles()

    def sample(self) -> None:
        """Take one sample."""
        roles = self._roles()
        at_s = round(time.perf_counter() - self.start_s, 3)
        self.samples.append(Sample(at_s, psutil.cpu_percent(), roles))

    def _roles(self) -> dict[str, Used]:
        # process_iter keeps its Process objects, and they remember the processor time they showed last.
        known = {process.pid: process for process in psutil.process_iter()}
        roles = {}
        for role, found in self._processes.items():
            used: list[tuple[float, int]] = []
            for one in found():
                with suppress(KeyError, psutil.Error):
                    used.append((known[one.pid].cpu_percent(), known[one.pid].memory_info().rss))
            percents = [percent for percent, _ in used]
            rss_bytes = sum(rss for _, rss in used)
            roles[role] = Used(round(sum(percents), 1), max(percents, default=0.0), rss_bytes)
        return roles


@contextmanager
def watching(processes: Processes, *, interval_s: float = 1.0) -> Iterator[UsageSampler]:
    """Sample processes in a background thread until the block ends.

    Args:
        processes: by role.
        interval_s: between two samples.
    """
    sampler = UsageSampler(processes)
    with running_in_background(sampler.sample, every_s=interval_s):
        yield sampler


def stolen_percent() -> float:
    """Return the share of all processors that the host gave to other guests since this thread's last call, in percent.

    Linux reports it in a guest («steal» in proc_stat(5)); on other systems it is always 0.
    """
    return float(getattr(psutil.cpu_times_percent(), "steal", 0.0))
