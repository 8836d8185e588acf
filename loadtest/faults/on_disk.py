"""PostgreSQL's disk is full, slow, or does not answer: nothing that was told «issued» may be missing."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

import psycopg

from couponapp.errors import ConfigurationError
from loadtest.faults.fault import Fault, Preloaded, Shows, Stage, answers
from loadtest.faults.on_postgres import CACHED, REFUSED, REFUSED_READ, stranger
from loadtest.testbed.preload import Control

# A tired disk, shared with others: a commit writes once and flushes once.
SLOW_S = 0.02
# Longer than the fault.
STALL_S = 10.0
GOES_DOWN_WITHIN_S = 10.0
# Most times it does so at once; one time in twenty it stays, and lets nobody in.
ENDS_WITHIN_S = 1.0

# The log goes on in a new file, for which there is no room.
NEXT_LOG_FILE = "SELECT pg_switch_wal()"


@contextmanager
def bad_disk(stage: Stage) -> Iterator[Control]:
    """Bad until the block ends; broken where no write and no flush has noticed."""
    assert stage.control is not None
    before = stage.control.met
    try:
        yield stage.control
    finally:
        stage.control.mend_disk()
    if stage.control.met == before:
        stage.broken.append("no write of PostgreSQL has met the bad disk")


@contextmanager
def full(stage: Stage) -> Iterator[None]:
    """No table and no index can grow; what has room in its pages goes on."""
    with bad_disk(stage) as disk:
        disk.fill_disk()
        yield


@contextmanager
def full_for_the_log(stage: Stage) -> Iterator[None]:
    """PostgreSQL cannot go on without its log: it stops, and stops again where somebody starts it."""
    try:
        with stranger(stage) as db, bad_disk(stage) as disk:
            disk.fill_disk()
            with suppress(psycopg.OperationalError):  # PostgreSQL may be down before it can answer
                db.execute(NEXT_LOG_FILE)
            _wait_until_down(stage)
            if _has_ended(stage):
                with suppress(ConfigurationError):
                    stage.service.postgres.start(stage.service.home)
                    stage.broken.append("PostgreSQL started on a full disk")
            yield
    finally:
        stage.service.postgres.end()  # it may be there still, although it lets nobody in
        stage.service.postgres.start(stage.service.home)


def _wait_until_down(stage: Stage) -> None:
    give_up_s = time.monotonic() + GOES_DOWN_WITHIN_S
    with suppress(psycopg.OperationalError):
        while time.monotonic() < give_up_s:
            stranger(stage).close()
            time.sleep(0.02)
        raise RuntimeError("PostgreSQL goes on without room for its log")


def _has_ended(stage: Stage) -> bool:
    assert stage.service.postgres.child is not None
    try:
        stage.service.postgres.child.process.wait(ENDS_WITHIN_S)
    except subprocess.TimeoutExpired:
        return False
    return True


@contextmanager
def slowed(stage: Stage, by_s: float) -> Iterator[None]:
    """Each write and each flush takes longer."""
    with bad_disk(stage) as disk:
        disk.slow_disk(by_s)
        yield


def slow(stage: Stage) -> AbstractContextManager[None]:
    """A commit takes forty milliseconds, and where a table grows some more."""
    return slowed(stage, SLOW_S)


def stalled(stage: Stage) -> AbstractContextManager[None]:
    """No commit comes to its end while it lasts."""
    return slowed(stage, STALL_S)


FAULTS = (
    Fault(
        name="disk full",
        expected="503; the other endpoints alive",
        happens=full,
        issue=REFUSED,
        shows=Shows.REFUSALS,
        preloaded=Preloaded.POSTGRESQL,
    ),
    Fault(
        name="disk full, log included",
        expected="PostgreSQL goes down: 503; nothing told is missing",
        happens=full_for_the_log,
        issue=REFUSED,
        shows=Shows.REFUSALS,
        look_up=CACHED,
        mine=REFUSED_READ,
        mending_s=5.0,
        preloaded=Preloaded.POSTGRESQL,
    ),
    Fault(
        name="disk slow",
        expected="20 ms a write or flush: nearly all are issued, later",
        happens=slow,
        issue=answers(201, 503, done=0.9),
        preloaded=Preloaded.POSTGRESQL,
    ),
    Fault(
        name="disk stalled",
        expected="503; the other endpoints alive",
        happens=stalled,
        issue=REFUSED,
        shows=Shows.REFUSALS,
        preloaded=Preloaded.POSTGRESQL,
    ),
)
