"""PostgreSQL breaks, or another session blocks it: short 503s, and recovery without help."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import psutil
import psycopg

from loadtest.faults.fault import REFUSES, WITHOUT_POSTGRESQL, Fault, Promises, Stage, answers, during
from loadtest.faults.stands import RELAY_TO_POSTGRESQL, slowed
from loadtest.testbed.processes import kill, suspended
from loadtest.testbed.waiting import wait_until

Session = psycopg.Connection[tuple[object, ...]]

# A request that has waited for the response to another one has no time left for its own.
SLOW_S = 0.6

LOCK_STOCK = "SELECT FROM coupon_stock FOR UPDATE"
CUT_POOLS = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE application_name IN ('couponapp-issue', 'couponapp-read', 'couponapp-admin')
"""
IDLE_ISSUER = "SELECT pid FROM pg_stat_activity WHERE application_name = 'couponapp-issue' AND state = 'idle' LIMIT 1"
STATE = "SELECT state FROM pg_stat_activity WHERE pid = %s"
WAITS = "SELECT pid FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"

wait_for = partial(wait_until, timeout_s=10.0)


def other_session(stage: Stage, options: str = "") -> Session:
    """Open a session that is not the service's, with the server's own time-outs; `options` as in libpq."""
    url = stage.service.postgres.url
    return psycopg.connect(url, autocommit=True, application_name="other-session", options=options)


def stopped(stage: Stage) -> AbstractContextManager[None]:
    """Shut it down cleanly, and start it afterwards."""
    return during(stage.service.postgres.end, stage.service.start_postgres)


def killed(stage: Stage) -> AbstractContextManager[None]:
    """Kill all its processes (SIGKILL); the new server recovers first."""
    return during(lambda: kill(stage.service.postgres.child), stage.service.start_postgres)


def frozen(stage: Stage) -> AbstractContextManager[None]:
    """Stop all its processes; the kernel still accepts connections for it."""
    return suspended(stage.service.postgres.child)


@contextmanager
def one_backend_frozen(stage: Stage) -> Iterator[None]:
    """Stop one connection of an issue pool while it holds no lock; the others work."""
    with other_session(stage) as db:
        otherwise = "no connection of an issue pool was ever idle"
        process = wait_for(lambda: _suspend_an_idle_one(db), otherwise)
    try:
        yield
    finally:
        process.resume()


def _suspend_an_idle_one(db: Session) -> psutil.Process | None:
    for (pid,) in db.execute(IDLE_ISSUER).fetchall():
        process = psutil.Process(int(str(pid)))
        process.suspend()
        # Checked again: it may have begun a statement between the query and the stop.
        if db.execute(STATE, [process.pid]).fetchone() == ("idle",):
            return process
        process.resume()
    return None


@contextmanager
def row_locked(stage: Stage) -> Iterator[None]:
    """Hold a lock on the stock."""
    with other_session(stage) as db, db.transaction():
        db.execute(LOCK_STOCK)
        yield


@contextmanager
def idle_in_transaction(stage: Stage) -> Iterator[None]:
    """Lock the stock and do nothing more; the session's own time-out ends it."""
    db = other_session(stage, "-c idle_in_transaction_session_timeout=3000")
    db.execute("BEGIN")
    db.execute(LOCK_STOCK)
    try:
        yield
        with other_session(stage) as observer:
            idle = [db.info.backend_pid]
            wait_for(lambda: observer.execute(STATE, idle).fetchone() is None, "the idle session was not ended")
    finally:
        db.close()


@contextmanager
def ddl_queue(stage: Stage, table: str, column: str) -> Iterator[None]:
    """Read a table in an open transaction: an ALTER TABLE waits for it, and all others wait for the ALTER TABLE."""
    alter = f"ALTER TABLE {table} ALTER COLUMN {column} SET NOT NULL".encode()
    with other_session(stage) as reader, other_session(stage) as changer:
        reader.execute("BEGIN")
        reader.execute(f"SELECT FROM {table} LIMIT 1".encode())
        changing = threading.Thread(target=changer.execute, args=(alter,), daemon=True)
        changing.start()
        try:
            waiting = [changer.info.backend_pid]
            wait_for(lambda: reader.execute(WAITS, waiting).fetchone(), "the change of the table does not wait")
            yield
        finally:
            reader.execute("ROLLBACK")
            changing.join(10.0)


@contextmanager
def connections_cut(stage: Stage) -> Iterator[None]:
    """End all connections of all pools, and the new ones once more."""
    with other_session(stage) as db:
        db.execute(CUT_POOLS)
        yield
        db.execute(CUT_POOLS)


MOST = Promises("the other connections continue to issue", answers(201, 503, done=0.8))
FEW_503 = Promises("few 503; new connections without help", answers(201, 503, done=0.5), mine=answers(200, 503))
FAULTS = (
    Fault("PostgreSQL stopped", stopped, WITHOUT_POSTGRESQL),
    Fault("PostgreSQL killed", killed, WITHOUT_POSTGRESQL),
    Fault("PostgreSQL frozen for 20 s", frozen, WITHOUT_POSTGRESQL, lasts_s=20.0, rate_per_s=200),
    Fault("one backend frozen", one_backend_frozen, MOST),
    Fault("stock locked by another session", row_locked, REFUSES),
    Fault("stock locked, then idle", idle_in_transaction, REFUSES),
    Fault("DDL queue at the stock", partial(ddl_queue, table="coupon_stock", column="remaining"), REFUSES),
    # «My coupons» holds all connections that could refresh look-ups.
    Fault("DDL queue at the issuances", partial(ddl_queue, table="issuances", column="code"), WITHOUT_POSTGRESQL),
    Fault("connections cut", connections_cut, FEW_503, lasts_s=1.0),
    # Each response comes late, so that the connections are never free.
    Fault("PostgreSQL slow", partial(slowed, delay_s=SLOW_S), WITHOUT_POSTGRESQL, serves=RELAY_TO_POSTGRESQL),
)
