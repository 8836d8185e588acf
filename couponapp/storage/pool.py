"""A bounded pool of autocommit connections whose timeouts are set once, at connect."""

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
from couponapp.storage.driver import affects_whole_pool, translated
from couponapp.storage.watchdog import Watchdog

Row = dict[str, Any]
Params = Mapping[str, Any] | Sequence[Any] | None
Connection = psycopg.Connection[DictRow]

# psycopg-pool backs off without a cap up to its reconnect_timeout, and with a bounded queue it
# can stay dead after that. Giving up early and checking again brings it back within a second or
# two of PostgreSQL's return (docs/decisions/0004).
RECONNECT_TIMEOUT_S = 2.0
RECHECK_DELAY_S = 0.5
WARM_UP_POLL_S = 0.02


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """How long each step may wait. None of them is unlimited.

    Attributes:
        wait_s: for a free connection, in seconds.
        connect_s: for a new connection, in seconds (whole ones; libpq's smallest is 2).
        lock_ms: for a lock, in milliseconds.
        statement_ms: for a whole statement, in milliseconds.
        idle_ms: between two statements of one transaction, in milliseconds.
        total_s: for everything from the wait for a connection to the answer, in seconds; kept
            by this process's own clock.
    """

    total_s: float
    wait_s: float
    lock_ms: int
    statement_ms: int
    connect_s: int = 2
    idle_ms: int = 5_000

    @classmethod
    def within(cls, deadline_ms: int) -> Timeouts:
        """Timeouts that share one deadline.

        Each step may use most of it, because in a rush any of them may be the slow one; their
        sum is what `total_s` bounds. What is left lets PostgreSQL's own timeouts speak first:
        they keep the connection.

        Args:
            deadline_ms: the most that all waits may take together, in milliseconds.
        """
        return cls(
            total_s=deadline_ms / 1000,
            wait_s=deadline_ms * 0.8 / 1000,
            lock_ms=deadline_ms * 7 // 10,
            statement_ms=deadline_ms * 8 // 10,
        )

    def session(self) -> dict[str, int]:
        """What the server itself keeps, as `couponapp.storage.session` wants it."""
        return {"statement_ms": self.statement_ms, "lock_ms": self.lock_ms, "idle_ms": self.idle_ms}


PING = "SELECT 1 AS pong"

_watchdog = Watchdog()


class Pool:
    """Runs statements on pooled connections; opened at first use, so after gunicorn's fork."""

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
        """Describe the pool; nothing is connected yet.

        Args:
            url: PostgreSQL's address.
            name: shown in `pg_stat_activity` and in metrics.
            max_size: the most connections.
            timeouts: see `Timeouts`.
            max_waiting: callers that may wait for a connection; one more is refused at once.
            synchronous_commit: a commit waits until it is on disk. Without, what was committed in the last
                half second may be undone when PostgreSQL crashes, as if it had not happened.
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
            # Fixed: an event's crowd comes in one second and must not wait for connections to be made.
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
        """The first row of one statement, or None.

        Args:
            sql: the statement.
            params: its values.
            timeout_s: the most that it may take, waiting for a connection included, in seconds;
                the pool's own bound when left out.

        Raises:
            couponapp.errors.Unavailable: and its children; see `couponapp.storage.driver.translated`.
            couponapp.errors.ConstraintViolated: a constraint refused the statement.
        """
        with self.connection(timeout_s) as connection:
            return connection.execute(sql, params).fetchone()

    def fetch_all(self, sql: LiteralString, params: Params = None, *, timeout_s: float | None = None) -> list[Row]:
        """All rows of one statement; arguments and errors as in `fetch_one`."""
        with self.connection(timeout_s) as connection:
            return connection.execute(sql, params).fetchall()

    def execute(self, sql: LiteralString, params: Params = None, *, timeout_s: float | None = None) -> int:
        """The number of rows that one statement touched; arguments and errors as in `fetch_one`."""
        with self.connection(timeout_s) as connection:
            return connection.execute(sql, params).rowcount

    @contextmanager
    def connection(self, timeout_s: float | None = None) -> Iterator[Connection]:
        """A pooled connection in autocommit, for a bounded time; errors as in `fetch_one`.

        Args:
            timeout_s: the most that getting and using it may take together, in seconds; the
                pool's own bound when left out.
        """
        total_s = self._timeouts.total_s if timeout_s is None else timeout_s
        give_up_s = time.monotonic() + total_s
        pool = self._open()
        try:
            # Not the pool's own context manager: it commits at the end, and there is nothing to commit.
            connection = pool.getconn(min(self._timeouts.wait_s, total_s))
        except psycopg.Error as error:
            raise translated(error) from error
        watch = _watchdog.watch(connection, give_up_s - time.monotonic())
        try:
            yield connection
        except psycopg.Error as error:
            if watch.fired:
                raise StatementTimedOut() from error
            if affects_whole_pool(error):
                # The idle ones in the pool most likely have the same trouble: replace them
                # instead of letting each fail a request of its own.
                pool.drain()
            raise translated(error) from error
        finally:
            if watch.stop():
                connection.close()  # cut off, perhaps after its answer had come: nobody else may get it
            pool.putconn(connection)

    def warm_up(self, timeout_s: float) -> bool:
        """Open the pool and wait until it is full; tells whether it was in time.

        Args:
            timeout_s: how long to wait, in seconds. The pool goes on connecting afterwards.
        """
        # Not the pool's own wait(), which closes the pool when it gives up.
        pool, give_up_s = self._open(), time.monotonic() + timeout_s
        while pool.get_stats().get("pool_available", 0) < pool.max_size:
            if time.monotonic() >= give_up_s:
                return False
            time.sleep(WARM_UP_POLL_S)
        return True

    def answers(self) -> bool:
        """PostgreSQL answers a ping within the pool's timeouts."""
        try:
            return self.fetch_one(PING) is not None
        except Unavailable:
            return False

    def stats(self) -> dict[str, int]:
        """psycopg-pool's counters, such as `pool_size`, `pool_available`, `requests_waiting`."""
        return dict(self._pool.get_stats())

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            if self._opened:
                self._pool.close(timeout=2)

    def _verify_session(self, connection: Connection) -> None:
        """Look at a new connection; the pool tells what is wrong, and tries again."""
        watch = _watchdog.watch(connection, self._timeouts.connect_s)
        try:
            session.verify_session_settings(connection, **self._timeouts.session())
        except BaseException:
            connection.close()
            raise
        finally:
            if watch.stop():
                connection.close()  # the pool refuses one that is closed

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
