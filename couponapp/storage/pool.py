"""A bounded pool of autocommit connections to PostgreSQL, each with its timeouts set at connect."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg.rows import DictRow, dict_row
from psycopg_pool import ConnectionPool

from couponapp.errors import StatementTimedOut, Unavailable
from couponapp.storage import session
from couponapp.storage.driver import affects_whole_pool, translate
from couponapp.storage.watchdog import Watchdog

Row = dict[str, Any]
Params = Mapping[str, Any] | Sequence[Any] | None
Connection = psycopg.Connection[DictRow]

# psycopg-pool backs off without a cap until its reconnect_timeout, and with a bounded queue it can stay
# dead after that. Giving up early and checking again brings it back within one or two seconds of
# PostgreSQL's return (docs/decisions/0004).
RECONNECT_TIMEOUT_S = 2.0
RECHECK_DELAY_S = 0.5
WARM_UP_POLL_S = 0.02


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """How long each step of a statement may take.

    Attributes:
        total_s: from the wait for a connection to the answer, in seconds, by this process's clock.
        wait_s: the wait for a free connection, in seconds.
        lock_ms: the wait for a lock, in milliseconds.
        statement_ms: a whole statement, in milliseconds.
        connect_s: making a connection, in whole seconds; libpq's minimum is 2.
        idle_ms: the time between two statements of one transaction, in milliseconds.
    """

    total_s: float
    wait_s: float
    lock_ms: int
    statement_ms: int
    connect_s: int = 2
    idle_ms: int = 5_000

    @classmethod
    def within(cls, deadline_ms: int) -> Timeouts:
        """Return timeouts that share one deadline.

        Each step may take most of it, because under load any of them may be the slow one; `total_s`
        bounds their sum. The rest lets PostgreSQL's own timeouts fire first, which keep the connection.

        Args:
            deadline_ms: the bound of all steps together, in milliseconds.
        """
        return cls(
            total_s=deadline_ms / 1000,
            wait_s=deadline_ms * 0.8 / 1000,
            lock_ms=deadline_ms * 7 // 10,
            statement_ms=deadline_ms * 8 // 10,
        )

    def session(self) -> dict[str, int]:
        """Return those that the server enforces, as arguments for `couponapp.storage.session`."""
        return {"statement_ms": self.statement_ms, "lock_ms": self.lock_ms, "idle_ms": self.idle_ms}


PING = "SELECT 1 AS pong"

_watchdog = Watchdog()


class Pool:
    """Runs statements on pooled connections. It opens at first use, so after gunicorn's fork.

    In a web process its waits switch greenlets.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        max_size: int,
        timeouts: Timeouts,
        max_waiting: int = 200,
        synchronous_commit: bool = True,
    ) -> None:
        """Configure the pool without connecting.

        Args:
            url: PostgreSQL's address.
            name: shown in `pg_stat_activity` and in metrics.
            max_size: the number of connections.
            timeouts: bounds of every statement.
            max_waiting: how many callers may wait for a connection; one more is refused at once.
            synchronous_commit: whether a commit waits until it is on disk. If not, a crash of PostgreSQL may
                undo the commits of the last half second.
        """
        self.name = name
        self._timeouts = timeouts
        self._lock = threading.Lock()
        self._opened = False
        self._pool: ConnectionPool[Connection] = ConnectionPool(
            url,
            kwargs={
                "autocommit": True,
                "row_factory": dict_row,
                "application_name": f"couponapp-{name}",
                "connect_timeout": timeouts.connect_s,
                "options": session.options(**timeouts.session(), synchronous_commit=synchronous_commit),
            },
            configure=self._verify_session,
            name=name,
            # Fixed: an event's crowd arrives within a second and must not wait for new connections.
            min_size=max_size,
            max_size=max_size,
            max_waiting=max_waiting,
            timeout=timeouts.wait_s,
            reconnect_timeout=RECONNECT_TIMEOUT_S,
            reconnect_failed=_check_again_soon,
            num_workers=2,
            open=False,
        )

    def fetch_one(self, sql: LiteralString, params: Params = None, *, timeout_s: float | None = None) -> Row | None:
        """Run one statement and return its first row, or None.

        Args:
            sql: the statement.
            params: its values.
            timeout_s: a bound of its own, including the wait for a connection, in seconds.

        Raises:
            couponapp.errors.Unavailable: or a subclass; see `couponapp.storage.driver.translate`.
            couponapp.errors.ConstraintViolated: a constraint refused the statement.
        """
        with self.connection(timeout_s) as connection:
            return connection.execute(sql, params).fetchone()

    def fetch_all(self, sql: LiteralString, params: Params = None, *, timeout_s: float | None = None) -> list[Row]:
        """Run one statement and return all its rows; arguments and errors as in `fetch_one`."""
        with self.connection(timeout_s) as connection:
            return connection.execute(sql, params).fetchall()

    def execute(self, sql: LiteralString, params: Params = None, *, timeout_s: float | None = None) -> int:
        """Run one statement and return the number of affected rows; arguments and errors as in `fetch_one`."""
        with self.connection(timeout_s) as connection:
            return connection.execute(sql, params).rowcount

    @contextmanager
    def connection(self, timeout_s: float | None = None) -> Iterator[Connection]:
        """Lend a pooled connection, in autocommit and for a bounded time; errors as in `fetch_one`.

        Args:
            timeout_s: a bound of its own for getting and using the connection, in seconds.
        """
        total_s = self._timeouts.total_s if timeout_s is None else timeout_s
        give_up_s = time.monotonic() + total_s
        pool = self._open()
        try:
            # Not the pool's own context manager, which commits at the end: there is nothing to commit.
            connection = pool.getconn(min(self._timeouts.wait_s, total_s))
        except psycopg.Error as error:
            raise translate(error) from error
        watch = _watchdog.watch(connection, give_up_s - time.monotonic())
        try:
            yield connection
        except psycopg.Error as error:
            if watch.fired:
                raise StatementTimedOut() from error
            if affects_whole_pool(error):
                # Replace the idle connections instead of letting each of them fail a request.
                pool.drain()
            raise translate(error) from error
        finally:
            if watch.stop():
                connection.close()  # shut down, perhaps after its answer came: it must not be reused
            pool.putconn(connection)

    def warm_up(self, timeout_s: float) -> bool:
        """Open the pool, wait until all connections are made, and return whether they were in time.

        Args:
            timeout_s: how long to wait, in seconds. Afterwards the pool continues to connect.
        """
        # Not the pool's own wait(), which closes the pool when it times out.
        pool, give_up_s = self._open(), time.monotonic() + timeout_s
        while pool.get_stats().get("pool_available", 0) < pool.max_size:
            if time.monotonic() >= give_up_s:
                return False
            time.sleep(WARM_UP_POLL_S)
        return True

    def answers(self) -> bool:
        """Return whether PostgreSQL answers a ping within the pool's timeouts."""
        try:
            return self.fetch_one(PING) is not None
        except Unavailable:
            return False

    def stats(self) -> dict[str, int]:
        """Return psycopg-pool's counters, such as `pool_size`, `pool_available`, `requests_waiting`."""
        return dict(self._pool.get_stats())

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            if self._opened:
                self._pool.close(timeout=2)

    def _verify_session(self, connection: Connection) -> None:
        """Verify a new connection; on an error the pool logs it and tries again."""
        watch = _watchdog.watch(connection, self._timeouts.connect_s)
        try:
            session.verify_session_settings(connection, **self._timeouts.session())
        except BaseException:
            connection.close()
            raise
        finally:
            if watch.stop():
                connection.close()  # the pool discards a closed connection

    def _open(self) -> ConnectionPool[Connection]:
        if not self._opened:
            with self._lock:
                if not self._opened:
                    self._pool.open()
                    self._opened = True
        return self._pool


def _check_again_soon(pool: ConnectionPool[Any]) -> None:
    timer = threading.Timer(RECHECK_DELAY_S, _check, args=(pool,))
    timer.daemon = True
    timer.start()


def _check(pool: ConnectionPool[Any]) -> None:
    if not pool.closed:
        pool.check()
