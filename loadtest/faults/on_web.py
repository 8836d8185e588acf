"""Web processes break, are replaced, or run out of something."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial

import psutil

from loadtest.driver.http_client import HOST
from loadtest.faults import on_postgres, on_redis
from loadtest.faults.fault import NOTHING_LOST, Fault, Lost, Promises, Shows, Stage, answers
from loadtest.testbed.service import WEB_PROCESSES
from loadtest.testbed.waiting import wait_until

# Some hundred for a process itself, the rest for its part of the load's connections and as many others.
FILES = 400
# More than the processes have room for.
IDLE_CONNECTIONS = 800
# What the server logs at its limit.
FULL = "connections are in use"
TIMEOUT_S = 15.0
# For some requests to be in flight when the server is told to stop.
GATHER_S = 0.3


def web_processes(stage: Stage) -> list[psutil.Process]:
    """Return those that answer, the oldest first."""
    return sorted(psutil.Process(stage.service.web.child.process.pid).children(), key=psutil.Process.create_time)


@contextmanager
def one_killed(stage: Stage) -> Iterator[None]:
    """Kill one (SIGKILL); gunicorn starts another."""
    web_processes(stage)[0].kill()
    yield


@contextmanager
def reloaded(stage: Stage) -> Iterator[None]:
    """Reload the server (SIGHUP): new processes start, the old ones finish their requests."""
    old = web_processes(stage)
    os.kill(stage.service.web.child.process.pid, signal.SIGHUP)
    yield
    if still_there := psutil.wait_procs(old, TIMEOUT_S)[1]:
        stage.broken.append(f"{len(still_there)} old processes are still there {TIMEOUT_S:.0f} s after HUP")


@contextmanager
def stopped(stage: Stage) -> Iterator[None]:
    """Stop the server (SIGTERM) while attempts wait for a lock, which they then get; start it afterwards."""
    with on_postgres.row_locked(stage):
        time.sleep(GATHER_S)
        stage.service.web.child.ask_to_end()
        time.sleep(GATHER_S)
    try:
        yield
    finally:
        stage.service.web.child.wait_or_kill(TIMEOUT_S)
        stage.service.start_web(port=stage.port)


@contextmanager
def out_of_files(stage: Stage) -> Iterator[None]:
    """Open more idle connections than the processes may have files; the server closes the longest idle ones."""
    before = web_processes(stage)
    with ExitStack() as idle:
        for _ in range(IDLE_CONNECTIONS):
            idle.enter_context(socket.create_connection((HOST, stage.port), timeout=TIMEOUT_S))
        yield
        if FULL not in stage.service.web.said():
            stage.broken.append(f"the limit of {FILES} files was not reached: no idle connection was closed")
    if web_processes(stage) != before:
        stage.broken.append("a web process has died")


@contextmanager
def replaced_during(stage: Stage, outage: Callable[[Stage], AbstractContextManager[None]]) -> Iterator[None]:
    """Kill one process during an outage of something else, so that its successor starts without it."""
    with outage(stage):
        web_processes(stage)[0].kill()
        yield


def are_all_there(stage: Stage) -> Iterator[str]:
    """Check that as many processes as before are running."""
    otherwise = f"there are not {WEB_PROCESSES} web processes again"
    try:
        wait_until(lambda: len(web_processes(stage)) == WEB_PROCESSES, otherwise, timeout_s=TIMEOUT_S)
    except RuntimeError as error:
        yield str(error)


# Of requests that are sent while a process is replaced, or connections are closed.
MOST_ISSUE, MOST_READ = answers(201, done=0.95), answers(200, done=0.95)
READ, REFUSED_READ = answers(200), answers(200, 503)

HANDLED_LOST = Promises("only requests that it was handling are lost", MOST_ISSUE, READ, READ)
FINISHED = replace(NOTHING_LOST, in_words="requests in flight are finished; new ones refused")
ANSWERED = Promises("idle connections are closed; all requests are answered", MOST_ISSUE, MOST_READ, MOST_READ)
LATER = Promises("503 until the new process can serve", answers(201, 503), REFUSED_READ, REFUSED_READ, Shows.REFUSALS)
ISSUES = Promises("issuing continues in both processes", MOST_ISSUE, READ, READ, Shows.OWN_COUNTERS)

_fault = partial(Fault, afterwards=are_all_there)
FAULTS = (
    _fault("one web process killed", one_killed, HANDLED_LOST, Lost.UNDER_WAY),
    _fault("web reloaded (HUP)", reloaded, NOTHING_LOST, mending_s=6.0),
    _fault(
        "web stopped (TERM) and started",
        stopped,
        FINISHED,
        Lost.NEWCOMERS,
        loses_after_s=GATHER_S,
        lasts_s=1.0,
        mending_s=10.0,
    ),
    _fault(
        "web at its limit of files",
        out_of_files,
        ANSWERED,
        Lost.FEW,
        look_ups_connect_anew=True,
        serves=lambda stage, _: stage.service.start_web(files=FILES),
    ),
    _fault("web replaced, no PostgreSQL", partial(replaced_during, outage=on_postgres.stopped), LATER, Lost.UNDER_WAY),
    _fault("web replaced, Redis frozen", partial(replaced_during, outage=on_redis.frozen), ISSUES, Lost.UNDER_WAY),
)
