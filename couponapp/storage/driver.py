"""Translates the driver's errors into those of `couponapp.errors`. Their cause is kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import errors as pg
from psycopg_pool import PoolClosed, PoolTimeout, TooManyRequests

from couponapp.errors import (
    ConnectionLost,
    ConstraintViolated,
    PoolExhausted,
    QueueFull,
    ServerTrouble,
    StatementTimedOut,
    Unavailable,
)

# SQLSTATE classes of a server that cannot serve now: insufficient resources, operator intervention,
# system error, internal error (PostgreSQL docs, appendix A).
_SERVER_TROUBLE = ("53", "57", "58", "XX")
_READ_ONLY = "25006"  # the connection leads to a server that is no longer primary

_BY_KIND: tuple[tuple[type[psycopg.Error], type[Unavailable]], ...] = (
    (TooManyRequests, QueueFull),
    (PoolTimeout, PoolExhausted),
    (PoolClosed, PoolExhausted),
    (pg.QueryCanceled, StatementTimedOut),
    (pg.LockNotAvailable, StatementTimedOut),
)


@contextmanager
def translated_errors() -> Iterator[None]:
    """Translate the driver's errors that the block raises: see `translate`."""
    try:
        yield
    except psycopg.Error as error:
        raise translate(error) from error


def translate(error: psycopg.Error) -> Exception:
    """Return the error of `couponapp.errors` for a driver's error.

    Returns:
        QueueFull: too many callers already wait for a connection.
        PoolExhausted: no connection became free in time.
        StatementTimedOut: `statement_timeout` or `lock_timeout` ended the statement.
        ConnectionLost: the connection broke; it is unknown whether the statement took effect.
        ConstraintViolated: a named constraint refused the statement.
        ServerTrouble: PostgreSQL reports that it cannot serve requests now.
        Unavailable: the statement may succeed later, for example after a deadlock.
        The same error: a bug of ours, such as wrong SQL.
    """
    for kind, translation in _BY_KIND:
        if isinstance(error, kind):
            return translation()
    state = error.sqlstate or ""
    if isinstance(error, psycopg.IntegrityError):
        return ConstraintViolated(error.diag.constraint_name or error.sqlstate or "?")
    if _is_connection_lost(error):
        return ConnectionLost(str(error).strip())
    if state.startswith(_SERVER_TROUBLE) or state == _READ_ONLY:
        return ServerTrouble(str(error).strip())
    if isinstance(error, psycopg.OperationalError):
        return Unavailable(str(error).strip())
    return error


def affects_whole_pool(error: psycopg.Error) -> bool:
    """Return whether the pool's other connections most likely have the same error."""
    return _is_connection_lost(error) or error.sqlstate == _READ_ONLY


def _is_connection_lost(error: psycopg.Error) -> bool:
    state = error.sqlstate or ""
    broken = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return broken and (not state or state.startswith(("08", "57P")))


def is_database_failure(error: BaseException) -> bool:
    """Return whether an error of ours speaks of PostgreSQL's trouble, and not of what we refuse ourselves."""
    return isinstance(error, ConnectionLost | StatementTimedOut | PoolExhausted | ServerTrouble)
