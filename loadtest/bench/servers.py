"""What the servers of a variant use: computing time and memory, by role."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil

from couponapp.local.processes import Child
from loadtest.testbed.service import Service

WEB, POSTGRES, REDIS = "web", "postgres", "redis"
ROLES = (WEB, POSTGRES, REDIS)
# Best first. Resident memory counts what processes share once in each of them; the proportional set
# size counts it once in all, and the unique one not at all.
_MEASURES = ("pss", "uss", "rss")


@dataclass(frozen=True)
class Memory:
    """What the processes of a role hold.

    Attributes:
        measure: `pss`, `uss` or `rss`: the first that this system tells.
        mb: of each process, in megabytes, the largest first.
    """

    measure: str
    mb: list[float]


Processes = Mapping[str, Callable[[], list[psutil.Process]]]


@dataclass(frozen=True)
class Web:
    """A web server, and what works for it.

    Attributes:
        port: on loopback.
        processes: by role: its own, and those of the database and Redis.
    """

    port: int
    processes: Processes


@contextmanager
def web_server(service: Service, app: str = "wsgi:app", **environ: str) -> Iterator[Web]:
    """A web server of a service, which is asked to end with the block.

    Args:
        service: with the database and Redis.
        app: the application.
        environ: settings that differ from the service's.
    """
    port = service.start_web(app, environ=environ)
    child = service.web
    processes = {
        WEB: lambda: _family(child),
        POSTGRES: lambda: _family(service.postgres.child),
        REDIS: lambda: _family(service.valkey.child),
    }
    try:
        yield Web(port, processes)
    finally:
        child.ask_to_end()  # the service waits for it at its own end


def cpu_s(processes: Processes) -> dict[str, float]:
    """Computing time so far by role, in seconds; that of children that have ended counts with their parents."""
    return {role: sum(_cpu_s(found())) for role, found in processes.items()}


def memory(processes: Processes) -> dict[str, Memory]:
    """What each role's processes hold now."""
    return {role: _memory(found()) for role, found in processes.items()}


def _family(child: Child | None) -> list[psutil.Process]:
    if child is None:
        return []
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(child.process.pid)
        return [parent, *parent.children(recursive=True)]
    return []


def _cpu_s(processes: list[psutil.Process]) -> Iterator[float]:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            yield times.user + times.system + times.children_user + times.children_system


def _memory(processes: list[psutil.Process]) -> Memory:
    held: list[dict[str, int]] = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            held.append({"rss": process.memory_info().rss} | _full(process))
    # One measure for all of them, or they could not be compared.
    measure = next(one for one in _MEASURES if all(one in each for each in held))
    return Memory(measure, sorted((round(each[measure] / 2**20, 1) for each in held), reverse=True))


def _full(process: psutil.Process) -> dict[str, int]:
    with suppress(psutil.AccessDenied):
        return dict(process.memory_full_info()._asdict())
    return {}
