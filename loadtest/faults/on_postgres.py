"""PostgreSQL breaks, or somebody else holds it up: short honest refusals, and back by itself."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import psutil
import psycopg

from loadtest.faults.fault import Behind, Fault, Shows, Stage, answers

Stranger = psycopg.Connection[tuple[object, ...]]

# Who has waited for another's answer has no time left for its own.
SLOW_S = 0.6
LONG_FREEZE_S = 20.0
PICK_TIMEOUT_S = 10.0

LOCK_STOCK = "SELECT FROM coupon_stock FOR UPDATE"
CUT_POOLS = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE application_name IN ('couponapp-issue', 'couponapp-read', 'couponapp-admin')
"""
IDLE_ISSUER = "SELECT pid FROM pg_stat_activity WHERE application_name = 'couponapp-issue' AND state = 'idle' LIMIT 1"
STATE = "SELECT state FROM pg_stat_activity WHERE pid = %s"
WAITS = "SELECT pid FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"


def stranger(stage: Stage, options: str = "") -> Stranger:
    """Somebody's session, with the server's own patience; `options` as libpq takes them."""
    url = stage.service.postgres.url
    return psycopg.connect(url, autocommit=True, application_name="stranger", options=options)


def processes(stage: Stage) -> Iterator[psutil.Process]:
    """The postmaster, and after it has had its signal every backend that it has by then."""
    assert stage.service.postgres.child is not None
    postmaster = psutil.Process(stage.service.postgres.child.process.pid)
    yield postmaster
    yield from postmaster.children()


@contextmanager
def stopped(stage: Stage) -> Iterator[None]:
    """Shut down cleanly, and started afterwards."""
    stage.service.postgres.end()
    try:
        yield
    finally:
        stage.service.postgres.start(stage.service.home)


def kill(stage: Stage) -> None:
    """Kill -9 of all its processes."""
    assert stage.service.postgres.child is not None
    for process in list(processes(stage)):  # at once: a dead postmaster no longer has children
        process.kill()
    stage.service.postgres.child.process.wait(10)


@contextmanager
def killed(stage: Stage) -> Iterator[None]:
    """Kill -9 of all its processes; the new one recovers first."""
    kill(stage)
    try:
        yield
    finally:
        stage.service.postgres.start(stage.service.home)


@contextmanager
def frozen(stage: Stage) -> Iterator[None]:
    """No process of it does anything; the kernel still accepts connections for it."""
    for process in processes(stage):
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes(stage):
            process.send_signal(signal.SIGCONT)


@contextmanager
def one_backend_frozen(stage: Stage) -> Iterator[None]:
    """One connection of an issue pool hangs while it holds no lock; the others work."""
    with stranger(stage) as db:
        process = _freeze_an_idle_one(db)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def _freeze_an_idle_one(db: Stranger) -> psutil.Process:
    give_up_s = time.monotonic() + PICK_TIMEOUT_S
    while time.monotonic() < give_up_s:
        if (row := db.execute(IDLE_ISSUER).fetchone()) is None:
            continue
        process = psutil.Process(int(str(row[0])))
        process.send_signal(signal.SIGSTOP)
        # Looked at again: between the look and the stop it may have begun a statement.
        if db.execute(STATE, [process.pid]).fetchone() == ("idle",):
            return process
        process.send_signal(signal.SIGCONT)
    raise RuntimeError("no connection of an issue pool was ever idle")


@contextmanager
def row_locked(stage: Stage) -> Iterator[None]:
    """A stranger holds the stock."""
    with stranger(stage) as db, db.transaction():
        db.execute(LOCK_STOCK)
        yield


@contextmanager
def idle_in_transaction(stage: Stage) -> Iterator[None]:
    """A stranger locks the stock and goes to lunch; his session's own time-out ends it."""
    db = stranger(stage, "-c idle_in_transaction_session_timeout=3000")
    db.execute("BEGIN")
    db.execute(LOCK_STOCK)
    try:
        yield
        _wait_until_ended(stage, db.info.backend_pid)
    finally:
        db.close()


def _wait_until_ended(stage: Stage, pid: int) -> None:
    give_up_s = time.monotonic() + PICK_TIMEOUT_S
    with stranger(stage) as watcher:
        while watcher.execute(STATE, [pid]).fetchone() is not None:
            if time.monotonic() > give_up_s:
                raise RuntimeError("the stranger's session was not ended")
            time.sleep(0.02)


@contextmanager
def ddl_queue(stage: Stage, alter: str, table: str) -> Iterator[None]:
    """A stranger has read the table and not ended; a change of it waits for him, and everybody for the change."""
    with stranger(stage) as reader, stranger(stage) as changer:
        reader.execute("BEGIN")
        reader.execute(f"SELECT FROM {table} LIMIT 1".encode())
        changing = threading.Thread(target=changer.execute, args=(alter.encode(),), daemon=True)
        changing.start()
        try:
            _wait_until_waiting(reader, changer.info.backend_pid)
            yield
        finally:
            reader.execute("ROLLBACK")
            changing.join(PICK_TIMEOUT_S)


def _wait_until_waiting(db: Stranger, pid: int) -> None:
    give_up_s = time.monotonic() + PICK_TIMEOUT_S
    while db.execute(WAITS, [pid]).fetchone() is None:
        if time.monotonic() > give_up_s:
            raise RuntimeError("the change of the table does not wait")
        time.sleep(0.02)


def stock_changed(stage: Stage) -> AbstractContextManager[None]:
    """The queue stands at the stock."""
    return ddl_queue(stage, "ALTER TABLE coupon_stock ALTER COLUMN remaining SET NOT NULL", "coupon_stock")


def issuances_changed(stage: Stage) -> AbstractContextManager[None]:
    """The queue stands at what the holders have."""
    return ddl_queue(stage, "ALTER TABLE issuances ALTER COLUMN code SET NOT NULL", "issuances")


@contextmanager
def connections_cut(stage: Stage) -> Iterator[None]:
    """All connections of all pools are ended, and the new ones again."""
    with stranger(stage) as db:
        db.execute(CUT_POOLS)
        yield
        db.execute(CUT_POOLS)


def slowed(stage: Stage) -> AbstractContextManager[None]:
    """Each answer comes late, so that the connections are never free."""
    return stage.answers_late(SLOW_S)


REFUSED = answers(201, 503)
# Look-ups from the cache, which may first wait 0.3 s for a fresh value.
CACHED = answers(200, p99_s=0.4)
REFUSED_READ = answers(200, 503)

FAULTS = (
    Fault(
        name="PostgreSQL stopped",
        expected="503; look-ups from the cache",
        happens=stopped,
        issue=REFUSED,
        shows=Shows.REFUSALS,
        look_up=CACHED,
        mine=REFUSED_READ,
    ),
    Fault(
        name="PostgreSQL killed",
        expected="503; look-ups from the cache; nothing told is missing",
        happens=killed,
        issue=REFUSED,
        shows=Shows.REFUSALS,
        look_up=CACHED,
        mine=REFUSED_READ,
    ),
    Fault(
        name="PostgreSQL frozen for 20 s",
        expected="503 at 200/s; look-ups from the cache",
        happens=frozen,
        issue=REFUSED,
        shows=Shows.REFUSALS,
        look_up=CACHED,
        mine=REFUSED_READ,
        lasts_s=LONG_FREEZE_S,
        rate_per_s=200,
    ),
    Fault(
        name="one backend frozen",
        expected="the other connections go on issuing",
        happens=one_backend_frozen,
        issue=answers(201, 503, done=0.8),
    ),
    Fault(
        name="stock locked by a stranger",
        expected="503; the other endpoints alive",
        happens=row_locked,
        issue=REFUSED,
        shows=Shows.REFUSALS,
    ),
    Fault(
        name="stock locked, then idle",
        expected="503 until the stranger's own time-out",
        happens=idle_in_transaction,
        issue=REFUSED,
        shows=Shows.REFUSALS,
    ),
    Fault(
        name="DDL queue at the stock",
        expected="503; the other endpoints alive",
        happens=stock_changed,
        issue=REFUSED,
        shows=Shows.REFUSALS,
    ),
    Fault(
        name="DDL queue at the issuances",
        expected="503, also of «my coupons»; look-ups from the cache",
        happens=issuances_changed,
        issue=REFUSED,
        shows=Shows.REFUSALS,
        look_up=CACHED,  # «my coupons» holds all connections that could read them anew
        mine=REFUSED_READ,
    ),
    Fault(
        name="connections cut",
        expected="few 503; new connections by themselves",
        happens=connections_cut,
        issue=answers(201, 503, done=0.5),
        mine=REFUSED_READ,
        lasts_s=1.0,
    ),
    Fault(
        name="PostgreSQL slow",
        expected="no connection is ever free: 503",
        happens=slowed,
        issue=REFUSED,
        shows=Shows.REFUSALS,
        look_up=CACHED,
        mine=REFUSED_READ,
        behind=Behind.POSTGRESQL,
    ),
)
