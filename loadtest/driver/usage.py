"""What the run's processes use of processor and memory, second by second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil

INTERVAL_S = 1.0


@dataclass(frozen=True)
class Used:
    """What the processes of one role used in one interval.

    Attributes:
        cpu_percent: of one processor, all processes together.
        busiest_percent: of one processor, the busiest process alone.
        rss_bytes: resident memory of all together; what processes share counts in each of them.
    """

    cpu_percent: float
    busiest_percent: float
    rss_bytes: int


@dataclass(frozen=True)
class Sample:
    """One moment; `at_s` in seconds from the first request, the processor's use since the sample before.

    Attributes:
        at_s: when.
        machine_percent: of all processors together, by whatever process of the machine.
        roles: by what they do: web, PostgreSQL and so on.
    """

    at_s: float
    machine_percent: float
    roles: dict[str, Used]


Pids = Mapping[str, Callable[[], Sequence[int]]]


@dataclass
class Watch:
    """Samples until it is told to stop.

    Attributes:
        pids: by role.
        interval_s: between two samples.
        samples: what was seen, in the order of time.
    """

    pids: Pids
    interval_s: float = INTERVAL_S
    samples: list[Sample] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._known: dict[int, tuple[psutil.Process, float]] = {}
        self._stop = threading.Event()
        self._began_s = time.perf_counter()
        psutil.cpu_percent()
        self._roles(1.0)

    def begin_at(self, start_s: float) -> None:
        """Count time from here.

        Args:
            start_s: the first request, by `time.perf_counter`.
        """
        self._began_s = start_s

    def run(self) -> None:
        """Take samples until it is told to stop."""
        last_s = time.perf_counter()
        while not self._stop.wait(self.interval_s):
            now_s = time.perf_counter()
            roles = self._roles(now_s - last_s)
            self.samples.append(Sample(now_s - self._began_s, psutil.cpu_percent(), roles))
            last_s = now_s

    def stop(self) -> None:
        """Take no more."""
        self._stop.set()

    def _roles(self, interval_s: float) -> dict[str, Used]:
        seen, children = {}, _children()
        for role, pids in self.pids.items():
            used = [one for pid in _with_children(pids(), children) if (one := self._used(pid, interval_s)) is not None]
            percents = [percent for percent, _ in used]
            seen[role] = Used(sum(percents), max(percents, default=0.0), sum(rss for _, rss in used))
        return seen

    def _used(self, pid: int, interval_s: float) -> tuple[float, int] | None:
        """Percent of a processor since the last time, and resident bytes; nothing where it has ended."""
        try:
            process, before_s = self._known.get(pid) or (psutil.Process(pid), None)
            times = process.cpu_times()
            total_s = times.user + times.system
            self._known[pid] = (process, total_s)
            percent = 0.0 if before_s is None else max(0.0, 100 * (total_s - before_s) / interval_s)
            return percent, process.memory_info().rss
        except psutil.Error:
            self._known.pop(pid, None)
            return None


def stolen_percent() -> float:
    """What the host has given to other guests since this thread last asked, in percent of all processors.

    Linux tells it where it is a guest («steal» in proc_stat(5)); elsewhere nothing is ever stolen.
    """
    return float(getattr(psutil.cpu_times_percent(), "steal", 0.0))


def _children() -> dict[int, list[int]]:
    """Of every process of the machine, in one pass."""
    found: dict[int, list[int]] = {}
    for process in psutil.process_iter(["ppid"]):
        found.setdefault(process.info["ppid"], []).append(process.pid)
    return found


def _with_children(pids: Sequence[int], children: Mapping[int, list[int]]) -> Iterator[int]:
    for pid in pids:
        yield pid
        yield from _with_children(children.get(pid, []), children)


@contextmanager
def watching(pids: Pids, *, interval_s: float = INTERVAL_S) -> Iterator[Watch]:
    """Watch processes and their children in a thread of this process, until the block ends.

    Args:
        pids: by role, asked for anew at every sample, because processes are replaced.
        interval_s: between two samples.
    """
    watch = Watch(pids, interval_s)
    thread = threading.Thread(target=watch.run, name="usage", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        watch.stop()
        thread.join(5)
