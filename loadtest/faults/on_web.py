"""Web processes break, are replaced, or run out of something."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psutil

from loadtest.driver.http_client import HOST
from loadtest.faults import on_postgres, on_redis
from loadtest.faults.fault import Fault, Lost, Shows, Stage, answers
from loadtest.testbed.service import WEB_PROCESSES

# Some hundred for a process itself, the rest for its part of the load's connections and as many others.
FILES = 400
# More than the processes have room for.
IDLE_CONNECTIONS = 800
FULL = "give way"
TIMEOUT_S = 15.0
# For some requests to be under way when the server is asked to stop.
GATHER_S = 0.3


def web_processes(stage: Stage) -> list[psutil.Process]:
    """Those that answer, the oldest first."""
    return sorted(
        psutil.Process(stage.service.web.process.pid).children(), key=lambda process: float(process.create_time())
    )


@contextmanager
def one_killed(stage: Stage) -> Iterator[None]:
    """Kill -9 of one; gunicorn starts another."""
    web_processes(stage)[0].kill()
    yield


@contextmanager
def reloaded(stage: Stage) -> Iterator[None]:
    """HUP: new processes come, the old ones finish what they are about."""
    old = web_processes(stage)
    os.kill(stage.service.web.process.pid, signal.SIGHUP)
    yield
    if still_there := psutil.wait_procs(old, TIMEOUT_S)[1]:
        stage.broken.append(f"{len(still_there)} old processes are still there {TIMEOUT_S:.0f} s after HUP")


@contextmanager
def stopped(stage: Stage) -> Iterator[None]:
    """TERM while attempts wait for the stock, which they then get; started again afterwards."""
    with on_postgres.row_locked(stage):
        time.sleep(GATHER_S)
        stage.service.web.ask_to_end()
        time.sleep(GATHER_S)
    try:
        yield
    finally:
        stage.service.web.wait_or_kill(TIMEOUT_S)
        stage.service.start_web(port=stage.port)


@contextmanager
def out_of_files(stage: Stage) -> Iterator[None]:
    """More idle connections than the processes may have files: those that wait longest give way."""
    before = web_processes(stage)
    with ExitStack() as idle:
        for _ in range(IDLE_CONNECTIONS):
            idle.enter_context(socket.create_connection((HOST, stage.port), timeout=TIMEOUT_S))
        yield
        if FULL not in stage.service.web_log():
            stage.broken.append(f"the limit of {FILES} files was not reached, since nobody gave way")
    if web_processes(stage) != before:
        stage.broken.append("a web process has died")


@contextmanager
def replaced_without_postgresql(stage: Stage) -> Iterator[None]:
    """A process starts while PostgreSQL is away."""
    with on_postgres.stopped(stage):
        web_processes(stage)[0].kill()
        yield


@contextmanager
def replaced_without_redis(stage: Stage) -> Iterator[None]:
    """A process starts while Redis is frozen."""
    with on_redis.frozen(stage):
        web_processes(stage)[0].kill()
        yield


def are_all_there(stage: Stage) -> Iterator[str]:
    """As many processes as before answer again."""
    give_up_s = time.monotonic() + TIMEOUT_S
    while len(web_processes(stage)) != WEB_PROCESSES:
        if time.monotonic() > give_up_s:
            yield f"{len(web_processes(stage))} web processes instead of {WEB_PROCESSES}"
            return
        time.sleep(0.05)


READ = answers(200)
# Of what is sent while a process is being replaced, or connections are taken away.
MOST = 0.95

FAULTS = (
    Fault(
        name="one web process killed",
        expected="only what it was answering is lost",
        happens=one_killed,
        issue=answers(201, done=MOST),
        look_up=READ,
        mine=READ,
        lost=Lost.UNDER_WAY,
        afterwards=are_all_there,
    ),
    Fault(
        name="web reloaded (HUP)",
        expected="no answer is lost",
        happens=reloaded,
        issue=answers(201),
        look_up=READ,
        mine=READ,
        mending_s=6.0,
        afterwards=are_all_there,
    ),
    Fault(
        name="web stopped (TERM) and started",
        expected="what is under way is finished; new ones refused",
        happens=stopped,
        issue=answers(201),
        look_up=READ,
        mine=READ,
        lost=Lost.NEWCOMERS,
        loses_after_s=GATHER_S,
        lasts_s=1.0,
        mending_s=10.0,
        afterwards=are_all_there,
    ),
    Fault(
        name="web at its limit of files",
        expected="idle connections give way; all are served",
        happens=out_of_files,
        issue=answers(201, done=MOST),
        look_up=answers(200, done=MOST),
        mine=answers(200, done=MOST),
        lost=Lost.FEW,
        files=FILES,
        look_ups_connect_anew=True,
        afterwards=are_all_there,
    ),
    Fault(
        name="web replaced, no PostgreSQL",
        expected="503; the new one serves as soon as it can",
        happens=replaced_without_postgresql,
        issue=answers(201, 503),
        shows=Shows.REFUSALS,
        look_up=answers(200, 503),
        mine=answers(200, 503),
        lost=Lost.UNDER_WAY,
        afterwards=are_all_there,
    ),
    Fault(
        name="web replaced, Redis frozen",
        expected="issuing goes on in both",
        happens=replaced_without_redis,
        issue=answers(201, done=MOST),
        shows=Shows.OWN_COUNTERS,
        look_up=READ,
        mine=READ,
        lost=Lost.UNDER_WAY,
        afterwards=are_all_there,
    ),
)
