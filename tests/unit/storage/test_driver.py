"""What the driver's errors mean: to the caller, to the pool, and to the circuit breaker."""

from __future__ import annotations

import psycopg
import psycopg_pool
import pytest
from psycopg import errors as pg

from couponapp import errors
from couponapp.storage.driver import affects_whole_pool, is_database_failure, translate, translated_errors

BROKEN = psycopg.OperationalError("the connection is lost")  # no SQLSTATE: not from the server
MEANINGS: list[tuple[psycopg.Error, type[Exception]]] = [
    (psycopg_pool.TooManyRequests(), errors.QueueFull),
    (psycopg_pool.PoolTimeout(), errors.PoolExhausted),
    (psycopg_pool.PoolClosed(), errors.PoolExhausted),
    (pg.QueryCanceled(), errors.StatementTimedOut),
    (pg.LockNotAvailable(), errors.StatementTimedOut),
    (BROKEN, errors.ConnectionLost),
    (psycopg.InterfaceError("the connection is closed"), errors.ConnectionLost),
    (pg.AdminShutdown(), errors.ConnectionLost),
    (pg.CrashShutdown(), errors.ConnectionLost),
    (pg.CannotConnectNow(), errors.ConnectionLost),
    (pg.ConnectionFailure(), errors.ConnectionLost),
    (pg.TooManyConnections(), errors.ServerTrouble),
    (pg.DiskFull(), errors.ServerTrouble),
    (pg.OutOfMemory(), errors.ServerTrouble),
    (pg.IoError(), errors.ServerTrouble),
    (pg.DataCorrupted(), errors.ServerTrouble),
    (pg.ReadOnlySqlTransaction(), errors.ServerTrouble),
    (pg.UniqueViolation(), errors.ConstraintViolated),
    (pg.CheckViolation(), errors.ConstraintViolated),
    (pg.DeadlockDetected(), errors.Unavailable),
    (pg.SerializationFailure(), errors.Unavailable),
]
BUGS: list[psycopg.Error] = [pg.SyntaxError(), pg.UndefinedTable(), pg.DivisionByZero(), psycopg.ProgrammingError("?")]


@pytest.mark.parametrize(("error", "meaning"), MEANINGS, ids=lambda value: getattr(value, "__name__", repr(value)))
def test_each_trouble_of_the_server_has_its_meaning(error: psycopg.Error, meaning: type[Exception]) -> None:
    assert type(translate(error)) is meaning


@pytest.mark.parametrize("error", BUGS, ids=repr)
def test_a_bug_of_ours_stays_what_it_is(error: psycopg.Error) -> None:
    assert translate(error) is error
    assert not affects_whole_pool(error)


def test_a_translated_error_keeps_its_cause() -> None:
    with pytest.raises(errors.ConnectionLost, match="the connection is lost") as translated, translated_errors():
        raise BROKEN
    assert translated.value.__cause__ is BROKEN


def test_only_the_servers_trouble_counts_for_the_circuit_and_not_what_we_refuse_ourselves() -> None:
    counts = {meaning for error, meaning in MEANINGS if is_database_failure(translate(error))}
    assert counts == {errors.StatementTimedOut, errors.PoolExhausted, errors.ConnectionLost, errors.ServerTrouble}
    assert not is_database_failure(errors.DeadlineExceeded())
    assert not is_database_failure(errors.Overloaded())


def test_the_other_connections_are_replaced_where_they_lead_to_the_same_dead_or_read_only_server() -> None:
    affected = {type(error) for error, _ in MEANINGS if affects_whole_pool(error)}
    assert affected == {
        *(psycopg.OperationalError, psycopg.InterfaceError),
        *(psycopg_pool.TooManyRequests, psycopg_pool.PoolTimeout, psycopg_pool.PoolClosed),
        *(pg.AdminShutdown, pg.CrashShutdown, pg.CannotConnectNow, pg.ConnectionFailure, pg.ReadOnlySqlTransaction),
    }
