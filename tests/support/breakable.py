"""Servers that a test may break, and the ways to break them."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg

from couponapp.auth import tokens
from couponapp.config import settings
from couponapp.local.postgres import EmbeddedPostgres
from couponapp.operating.verify import verify
from couponapp.planning import coupons
from couponapp.storage import migrations
from couponapp.storage.pool import Pool, Timeouts
from loadtest.driver.http_client import request_bytes
from tests.support.servers import own_postgres, service_environ, wait_until
from tests.support.valkeys import Server, running_valkey

WAITING_ISSUERS = """
SELECT count(*) FROM pg_stat_activity WHERE application_name = 'couponapp-issue' AND wait_event_type = 'Lock'
"""
CUT_POOLS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'couponapp-%'"

_numbers = itertools.count(1)


# The circuit has tests of its own: elsewhere it must not refuse what is to meet the fault.
CLOSED_CIRCUIT = {"COUPON_BREAKER_WINDOW": "100000", "COUPON_BREAKER_MIN_CALLS": "100000"}
# Shorter than usual, so that its bound leaves room for a machine that is busy with something else.
DEADLINE_MS = 500


@dataclass(frozen=True)
class Site:
    """PostgreSQL and Valkey of a module's own, and one open coupon."""

    directory: Path
    postgres: EmbeddedPostgres
    valkey: Server
    environ: dict[str, str]
    coupon_id: int

    def token(self, user: str) -> str:
        """A token of a user."""
        return tokens.sign(settings.load(self.environ), user, ttl_s=600)

    def attempt(self) -> bytes:
        """An attempt of somebody who has not asked before."""
        token = self.token(f"user-{next(_numbers)}")
        return request_bytes("POST", f"/api/v1/coupons/{self.coupon_id}/issue", token)

    def stranger(self) -> psycopg.Connection[tuple[object, ...]]:
        """Somebody else's session."""
        return psycopg.connect(self.postgres.url, autocommit=True, application_name="stranger")

    def broken_invariants(self) -> Sequence[str]:
        """What `verify` finds."""
        pool = Pool(self.postgres.url, name="judge", max_size=1, timeouts=Timeouts.within(20_000))
        try:
            return verify(pool).violations
        finally:
            pool.close()

    @contextmanager
    def stock_locked(self) -> Iterator[None]:
        """A stranger holds the stock."""
        with self.stranger() as db, db.transaction():
            db.execute("SELECT FROM coupon_stock FOR UPDATE")
            yield

    @contextmanager
    def stock_behind_ddl(self) -> Iterator[None]:
        """A change of the table waits for a stranger who has read it, and everybody for the change."""
        with self.stranger() as reader, self.stranger() as changer, ThreadPoolExecutor(1) as executor:
            reader.execute("BEGIN")
            reader.execute("SELECT FROM coupon_stock")
            changing = executor.submit(changer.execute, "ALTER TABLE coupon_stock ALTER COLUMN remaining SET NOT NULL")
            waits = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
            pid = [changer.info.backend_pid]
            try:
                wait_until(lambda: reader.execute(waits, pid).fetchone(), timeout_s=20, what="the change waits")
                yield
            finally:
                reader.execute("ROLLBACK")
                changing.result(20)

    @contextmanager
    def postgres_away(self) -> Iterator[None]:
        """PostgreSQL is shut down, and started again afterwards."""
        self.postgres.end()
        try:
            yield
        finally:
            self.postgres.start(self.directory)

    @contextmanager
    def postgres_frozen(self) -> Iterator[None]:
        """No process of PostgreSQL does anything."""
        for process in self._postgres_processes():
            process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for process in self._postgres_processes():
                process.send_signal(signal.SIGCONT)

    @contextmanager
    def connections_cut(self) -> Iterator[None]:
        """All pooled connections have just been ended."""
        with self.stranger() as db:
            db.execute(CUT_POOLS)
        yield

    @contextmanager
    def redis_frozen(self) -> Iterator[None]:
        """Redis accepts connections and answers nothing."""
        with self.valkey.frozen():
            yield

    def wait_until_attempts_wait(self, count: int) -> None:
        """Wait until so many statements of attempts hang at a lock."""
        with self.stranger() as db:

            def enough() -> bool:
                row = db.execute(WAITING_ISSUERS).fetchone()
                return row is not None and int(str(row[0])) >= count

            wait_until(enough, timeout_s=20, what=f"{count} attempts wait for a lock")

    def _postgres_processes(self) -> Iterator[psutil.Process]:
        assert self.postgres.child is not None
        postmaster = psutil.Process(self.postgres.child.process.pid)
        yield postmaster
        yield from postmaster.children()  # those it has after it was stopped


@contextmanager
def impatient_site(directory: Path, **environ: str) -> Iterator[Site]:
    """One whose attempts end early, and meet the fault themselves."""
    with breakable_site(directory, COUPON_DEADLINE_MS=str(DEADLINE_MS), **CLOSED_CIRCUIT, **environ) as site:
        yield site


@contextmanager
def breakable_site(directory: Path, **environ: str) -> Iterator[Site]:
    """A PostgreSQL and a Valkey that nobody else uses, and what a web server needs to use them."""
    with own_postgres(directory, "fsync=off") as postgres, running_valkey(directory) as valkey:
        migrations.migrate(postgres.url)
        pool = Pool(postgres.url, name="site", max_size=1, timeouts=Timeouts.within(20_000))
        coupon_id = coupons.create(pool, name="쿠폰", total=100_000, opens_at=-60.0, closes_at=86_400.0)
        pool.close()
        yield Site(directory, postgres, valkey, service_environ(postgres.url, valkey.url, **environ), coupon_id)
