"""PostgreSQL has a synchronous standby, which breaks, or must take its place."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psutil

from loadtest.faults import on_postgres
from loadtest.faults.fault import POOLS_HEAL_S, Fault, Shows, Stage
from loadtest.faults.on_postgres import CACHED, REFUSED, REFUSED_READ
from loadtest.testbed.replica import Replica

# A connection waits 2 s for the first server of its address before it tries the second; the rest is
# for a pool that has begun to just before the second was ready.
ASKED_FIRST_S = 3.0


def with_standby(stage: Stage, stack: ExitStack) -> int:
    """A web server that knows two addresses: the primary's, and that of a standby that commits wait for."""
    home = stage.service.home / "standby"
    stage.beside = replica = Replica(home, stage.service.postgres)
    stack.callback(replica.end)
    replica.start(home)
    replica.make_synchronous()
    return stage.service.start_web(environ={"DATABASE_URL": replica.either_url})


def _standby(stage: Stage) -> Replica:
    assert isinstance(stage.beside, Replica)
    return stage.beside


@contextmanager
def failed_over(stage: Stage) -> Iterator[None]:
    """Kill -9 of the primary for good; the standby is promoted at the end."""
    on_postgres.kill(stage)
    yield
    _take_over(stage)


@contextmanager
def failed_over_from_frozen(stage: Stage) -> Iterator[None]:
    """The primary takes connections and answers nothing, and stays so, as a machine that is cut off."""
    for process in on_postgres.processes(stage):
        process.send_signal(signal.SIGSTOP)
    yield
    _take_over(stage)


def _take_over(stage: Stage) -> None:
    _standby(stage).promote()
    stage.moved_to = _standby(stage).url


@contextmanager
def standby_frozen(stage: Stage) -> Iterator[None]:
    """The standby confirms nothing, so no commit ends; what is only on the primary is told to nobody."""
    child = _standby(stage).child
    assert child is not None
    postmaster = psutil.Process(child.process.pid)
    frozen = [postmaster, *postmaster.children()]
    for process in frozen:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in frozen:
            process.send_signal(signal.SIGCONT)


FAULTS = (
    Fault(
        name="failover to a standby",
        expected="503 until then; nothing told is missing",
        happens=failed_over,
        issue=REFUSED,
        shows=Shows.REFUSALS,
        look_up=CACHED,
        mine=REFUSED_READ,
        serves=with_standby,
    ),
    Fault(
        name="failover, primary frozen",
        expected="the same; each connection tries the frozen one first",
        happens=failed_over_from_frozen,
        issue=REFUSED,
        shows=Shows.REFUSALS,
        look_up=CACHED,
        mine=REFUSED_READ,
        back_s=POOLS_HEAL_S + ASKED_FIRST_S,
        serves=with_standby,
    ),
    Fault(
        name="synchronous standby frozen",
        expected="503; the other endpoints alive",
        happens=standby_frozen,
        issue=REFUSED,
        shows=Shows.REFUSALS,
        serves=with_standby,
    ),
)
