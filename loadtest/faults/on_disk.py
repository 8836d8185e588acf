"""PostgreSQL's disk is full, slow, or does not respond: no issuance that a user was shown may be missing."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import psycopg

from couponapp.errors import ConfigurationError
from loadtest.faults.fault import REFUSES, WITHOUT_POSTGRESQL, Fault, Promises, Stage, answers, during
from loadtest.faults.on_postgres import other_session
from loadtest.faults.stands import preloaded_postgresql
from loadtest.testbed.preload import Control, missing
from loadtest.testbed.waiting import wait_until

# A busy shared disk: a commit writes once and flushes once.
SLOW_S = 0.02
# Longer than the fault.
STALL_S = 10.0
# Its main process usually ends at once; one time in twenty it stays, and accepts no sessions.
ENDS_WITHIN_S = 1.0

# The log continues in a new file, for which there is no room.
NEXT_LOG_FILE = "SELECT pg_switch_wal()"


@contextmanager
def bad_disk(stage: Stage, spoil: Callable[[Control], None]) -> Iterator[None]:
    """Spoil the disk until the block ends; a disk that no write and no flush has met proves nothing."""
    disk = stage.fixture_as(Control)
    before = disk.met
    with during(lambda: spoil(disk), disk.mend_disk):
        yield
    if disk.met == before:
        stage.broken.append("no write of PostgreSQL has met the bad disk")


# No table and no index can grow; what has room in its pages continues.
full = partial(bad_disk, spoil=Control.fill_disk)


@contextmanager
def full_for_the_log(stage: Stage) -> Iterator[None]:
    """Leave no room for the write-ahead log: PostgreSQL stops, and stops again where it is started."""
    try:
        with other_session(stage) as db, full(stage):
            with suppress(psycopg.OperationalError):  # PostgreSQL may be down before it can answer
                db.execute(NEXT_LOG_FILE)
            wait_until(lambda: _is_down(stage), "PostgreSQL runs without room for its log", timeout_s=10.0)
            if _has_ended(stage):
                with suppress(ConfigurationError):
                    stage.service.start_postgres()
                    stage.broken.append("PostgreSQL started on a full disk")
            yield
    finally:
        stage.service.postgres.end()  # it may still run although it accepts no sessions
        stage.service.start_postgres()


def _is_down(stage: Stage) -> bool:
    try:
        other_session(stage).close()
    except psycopg.OperationalError:
        return True
    return False


def _has_ended(stage: Stage) -> bool:
    assert stage.service.postgres.child is not None
    process = stage.service.postgres.child.process
    with suppress(subprocess.TimeoutExpired):
        process.wait(ENDS_WITHIN_S)
    return process.poll() is not None


LATER = Promises("20 ms a write or flush: nearly all are issued, later", answers(201, 503, done=0.9))
_fault = partial(Fault, serves=preloaded_postgresql, lacks=missing)
FAULTS = (
    _fault("disk full", full, REFUSES),
    _fault("disk full, log included", full_for_the_log, WITHOUT_POSTGRESQL, mending_s=5.0),
    _fault("disk slow", partial(bad_disk, spoil=lambda disk: disk.slow_disk(SLOW_S)), LATER),
    _fault("disk stalled", partial(bad_disk, spoil=lambda disk: disk.slow_disk(STALL_S)), REFUSES),
)
