"""The web server of a variant, and what its processes use: computing time and memory, by role."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil

from loadtest.testbed.processes import Processes
from loadtest.testbed.service import Service

ROLES = "web", "postgres", "redis"
# Best first. Resident memory counts shared memory once in each process; the proportional set size
# counts it once in all, and the unique set size does not count it.
_MEASURES = ("pss", "uss", "rss")


@dataclass(frozen=True)
class Memory:
    """What the processes of a role hold.

    Attributes:
        measure: `pss`, `uss` or `rss`: the first that this system provides.
        mb: of each process, in megabytes, the largest first.
    """

    measure: str
    mb: list[float]


@dataclass(frozen=True)
class Web:
    """A web server, and the processes that work for it.

    Attributes:
        port: on loopback.
        processes: by role: its own, and those of the database and Redis.
    """

    port: int
    processes: Processes


@contextmanager
def web_server(service: Service, app: str = "wsgi:app", **environ: str) -> Iterator[Web]:
    """Start a web server of a service; tell it to stop when the block ends.

    Args:
        service: with the database and Redis.
        app: WSGI application.
        environ: settings that differ from the service's.
    """
    port = service.start_web(app, environ=environ)
    child = service.web.child
    try:
        yield Web(port, service.processes())
    finally:
        child.ask_to_end()  # the service waits for it at its own end


def cpu_s(processes: Processes) -> dict[str, float]:
    """Return computing time so far by role, in seconds; that of ended children counts with their parents."""
    return {role: sum(_cpu_s(found())) for role, found in processes.items()}


def memory(processes: Processes) -> dict[str, Memory]:
    """Return what the processes hold now, by role."""
    return {role: _memory(found()) for role, found in processes.items()}


def _cpu_s(processes: Iterator[psutil.Process]) -> Iterator[float]:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            yield times.user + times.system + times.children_user + times.children_system


def _memory(processes: Iterator[psutil.Process]) -> Memory:
    held: list[dict[str, int]] = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            try:
                held.append(process.memory_full_info()._asdict())
            except psutil.AccessDenied:
                held.append(process.memory_info()._asdict())
    # One measure for all processes, so that they can be compared.
    measure = next(one for one in _MEASURES if all(one in each for each in held))
    return Memory(measure, sorted((round(each[measure] / 2**20, 1) for each in held), reverse=True))
