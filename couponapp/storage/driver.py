"""Driver errors turned into ours, in one place. The cause is kept."""

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

# SQLSTATE classes in which PostgreSQL says that it cannot serve now: insufficient resources,
# operator intervention, system error, internal error (PostgreSQL docs, appendix A).
_SERVER_TROUBLE = ("53", "57", "58", "XX")
_READ_ONLY = "25006"  # a pooled connection that sits on a node which is no longer primary


_BY_KIND: tuple[tuple[type[psycopg.Error], type[Unavailable]], ...] = (
    (TooManyRequests, QueueFull),
    (PoolTimeout, PoolExhausted),
    (PoolClosed, PoolExhausted),
    (pg.QueryCanceled, StatementTimedOut),
    (pg.LockNotAvailable, StatementTimedOut),
)


@contextmanager
def our_errors() -> Iterator[None]:
    """Turn what the driver raises into `couponapp.errors`: see `translated`."""
    try:
        yield
    except psycopg.Error as error:
        raise translated(error) from error


def translated(error: psycopg.Error) -> Exception:
    """What the driver has raised as one of ours, or as it is where it is a mistake of ours.

    Returns:
        QueueFull: too many already wait for a connection.
        PoolExhausted: no connection became free in time.
        StatementTimedOut: `statement_timeout` or `lock_timeout` ended the statement.
        ConnectionLost: the connection broke; the outcome is unknown.
        ConstraintViolated: a named constraint refused the statement.
        ServerTrouble: PostgreSQL says that it cannot serve now.
        Unavailable: the statement may work another time, for example after a deadlock.
    """
    for theirs, ours in _BY_KIND:
        if isinstance(error, theirs):
            return ours()
    state = error.sqlstate or ""
    if isinstance(error, psycopg.IntegrityError):
        return ConstraintViolated(error.diag.constraint_name or error.sqlstate or "?")
    if is_lost(error):
        return ConnectionLost(str(error).strip())
    if state.startswith(_SERVER_TROUBLE) or state == _READ_ONLY:
        return ServerTrouble(str(error).strip())
    if isinstance(error, psycopg.OperationalError):
        return Unavailable(str(error).strip())
    return error  # such as wrong SQL: it must surface as it is


def affects_whole_pool(error: psycopg.Error) -> bool:
    """What befell one connection of a pool most likely holds for the others too."""
    return is_lost(error) or error.sqlstate == _READ_ONLY


def is_lost(error: psycopg.Error) -> bool:
    """The connection broke under the statement, whose outcome is therefore unknown."""
    state = error.sqlstate or ""
    broken = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return broken and (not state or state.startswith(("08", "57P")))


def is_database_failure(error: BaseException) -> bool:
    """Return whether an error of ours speaks of PostgreSQL's trouble, and not of what we refuse ourselves."""
    return isinstance(error, ConnectionLost | StatementTimedOut | PoolExhausted | ServerTrouble)
