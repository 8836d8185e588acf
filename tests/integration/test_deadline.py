"""Nothing waits without a bound: a lock, a frozen server, an exhausted pool."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import psycopg
import pytest

from couponapp.errors import PoolExhausted, StatementTimedOut
from couponapp.guards.deadline import Deadline
from couponapp.issuing.statement import Outcome, issue
from couponapp.local.postgres import EmbeddedPostgres
from couponapp.operating.verify import verify
from couponapp.planning import coupons
from couponapp.storage import migrations
from couponapp.storage.pool import Pool
from couponapp.storage.watchdog import HasDescriptor, Watch, Watchdog
from tests.support.servers import own_postgres, wait_until

NewCoupon = Callable[..., int]
SLEEPS = "SELECT pid FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"
# Far beyond every bound that is tested, far below the test's own.
FOREVER_S = 60


def test_a_session_has_its_timeouts_from_the_start_whatever_the_servers_defaults(
    make_pool: Callable[..., Pool], database_url: str
) -> None:
    with psycopg.connect(database_url, autocommit=True) as admin:
        for default in ("default_transaction_isolation = 'serializable'", "synchronous_commit = off"):
            admin.execute(f"ALTER DATABASE {admin.info.dbname} SET {default}".encode())
    pool = make_pool(database_url, deadline_ms=1000)
    shown = {
        name: pool.fetch_all(f"SHOW {name}")[0][name]
        for name in (
            "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout",
            "transaction_isolation", "synchronous_commit",
        )
    }  # fmt: skip
    assert shown == {
        "statement_timeout": "800ms",
        "lock_timeout": "700ms",
        "idle_in_transaction_session_timeout": "5s",
        "transaction_isolation": "read committed",
        "synchronous_commit": "on",
    }


def test_the_wait_for_a_row_lock_of_another_session_is_bounded(
    make_pool: Callable[..., Pool], database_url: str, new_coupon: NewCoupon
) -> None:
    coupon_id = new_coupon()
    bounded = make_pool(database_url, deadline_ms=500)
    assert bounded.warm_up(20)
    with psycopg.connect(database_url) as stranger:
        stranger.execute("SELECT FROM coupon_stock FOR UPDATE")
        with pytest.raises(StatementTimedOut):
            issue(bounded, coupon_id, "kim")
    assert issue(bounded, coupon_id, "kim").outcome is Outcome.ISSUED


def test_a_shorter_deadline_overrides_the_servers_timeouts(
    make_pool: Callable[..., Pool], database_url: str, new_coupon: NewCoupon
) -> None:
    coupon_id = new_coupon()
    patient = make_pool(database_url, deadline_ms=FOREVER_S * 1000)
    assert patient.warm_up(20)
    with psycopg.connect(database_url) as stranger:
        stranger.execute("SELECT FROM coupon_stock FOR UPDATE")
        with pytest.raises(StatementTimedOut):
            issue(patient, coupon_id, "kim", deadline=Deadline(0.3))
    assert verify(patient).clean


def test_a_connection_is_shut_down_even_if_no_descriptor_is_left(database_url: str) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with (
        psycopg.connect(database_url, autocommit=True) as observer,
        psycopg.connect(database_url, autocommit=True) as hanging,
        ThreadPoolExecutor(1) as executor,
    ):
        waiting = executor.submit(hanging.execute, "SELECT pg_sleep(30)")
        sleeps = [hanging.info.backend_pid]
        wait_until(lambda: observer.execute(SLEEPS, sleeps).fetchone(), timeout_s=20, what="the statement runs")
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))  # what is open stays so; nothing new
        try:
            with pytest.raises(OSError, match="Too many open files"):
                os.dup(0)
            Watchdog().watch(hanging, 0.01)
            with pytest.raises(psycopg.OperationalError):
                waiting.result(20)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_full_pool_refuses_within_its_bound(make_pool: Callable[..., Pool], database_url: str) -> None:
    pool = make_pool(database_url, size=1, deadline_ms=500)
    assert pool.warm_up(20)
    with pool.connection(), pytest.raises(PoolExhausted):
        pool.fetch_one("SELECT 1")
    assert pool.answers()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """A server that can be frozen."""
    with own_postgres(tmp_path, "fsync=off") as server:
        migrations.migrate(server.url)
        yield server


def freeze(server: EmbeddedPostgres, number: signal.Signals) -> None:
    """Stop or continue the postmaster and all its backends."""
    assert server.child is not None
    postmaster = psutil.Process(server.child.process.pid)
    for process in (postmaster, *postmaster.children()):
        process.send_signal(number)


def test_a_frozen_server_is_given_up_and_used_again_once_it_continues(
    make_pool: Callable[..., Pool], server: EmbeddedPostgres
) -> None:
    pool = make_pool(server.url, size=2, deadline_ms=500)
    assert pool.warm_up(20)
    coupon_id = coupons.create(pool, name="쿠폰", total=10, opens_at=-60.0, closes_at=3600.0)
    freeze(server, signal.SIGSTOP)
    try:
        began_s = time.monotonic()
        for number in range(4):  # more than the pool has connections
            with pytest.raises((StatementTimedOut, PoolExhausted)):
                issue(pool, coupon_id, f"user-{number}", f"key-{number}")
        assert time.monotonic() - began_s < FOREVER_S  # without the watchdog it is the test's own time-out
    finally:
        freeze(server, signal.SIGCONT)

    def issued() -> bool:
        try:
            return issue(pool, coupon_id, "user-0", "key-0").outcome in (Outcome.ISSUED, Outcome.REPLAYED)
        except (StatementTimedOut, PoolExhausted):
            return False

    wait_until(issued, timeout_s=30, what="it issues again")
    assert verify(make_pool(server.url)).clean


def test_without_the_watchdog_the_wait_for_a_frozen_server_is_unbounded(
    make_pool: Callable[..., Pool], server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The negative control of the test above.
    class Asleep(Watchdog):
        def watch(self, connection: HasDescriptor, timeout_s: float) -> Watch:
            return Watch(connection, threading.Condition())

    monkeypatch.setattr("couponapp.storage.pool._watchdog", Asleep())
    pool = make_pool(server.url, size=1, deadline_ms=300)
    assert pool.warm_up(20)
    freeze(server, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as executor:
        waiting = executor.submit(pool.fetch_one, "SELECT 1 AS one")
        try:
            with pytest.raises(TimeoutError):
                waiting.result(5 * 0.3)
        finally:
            freeze(server, signal.SIGCONT)
        assert waiting.result(FOREVER_S) == {"one": 1}
