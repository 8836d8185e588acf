"""How busy this machine is: other programs' load must not be blamed on the service."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager

from loadtest.driver.background import running_in_background
from loadtest.load.figures import percentiles_ms

# What a web process computes for a few requests.
WORK_S = 0.005
# With a fault's load and nothing else, two cores make it wait up to 11 ms at p99; beyond this, bounds
# of milliseconds say more about the machine than about the service.
BUSY_MS = 15.0
LOOK_S = 2.0


class HostLoad:
    """Computes for 5 ms repeatedly, and measures how long it waits for a processor meanwhile."""

    def __init__(self) -> None:
        self._waited_s: list[float] = []

    @property
    def waited_ms(self) -> float:
        """How long the work waited for a processor, at p99, in milliseconds."""
        return percentiles_ms(self._waited_s)[99]

    def measuring(self) -> AbstractContextManager[None]:
        """Measure during the block, in a thread of this process, which has little else to do."""
        return running_in_background(self._work, every_s=0.05)

    def _work(self) -> None:
        began_s, worked_s = time.perf_counter(), time.thread_time()
        while (done_s := time.thread_time() - worked_s) < WORK_S:
            pass
        self._waited_s.append(time.perf_counter() - began_s - done_s)


def wait_until_quiet(timeout_s: float) -> None:
    """Wait until the machine has been quiet for a moment, or the time is up.

    Args:
        timeout_s: how long to wait, in seconds.
    """
    give_up_s = time.monotonic() + timeout_s
    while time.monotonic() < give_up_s:
        host_load = HostLoad()
        with host_load.measuring():
            time.sleep(LOOK_S)
        if host_load.waited_ms <= BUSY_MS:
            return
