"""The settings of each new session are verified, because poolers drop settings that are requested at connect."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg.rows import DictRow, dict_row

from couponapp.errors import ConfigurationError
from couponapp.storage import session

BOUNDS = {"statement_ms": 800, "lock_ms": 700, "idle_ms": 5000}
# What a role brings that was prepared for a pooler.
ROLE = {"statement_timeout": "800", "lock_timeout": "700", "idle_in_transaction_session_timeout": "5000"}

Connection = psycopg.Connection[DictRow]


def connected(url: str, options: str = "") -> Connection:
    return psycopg.connect(url, autocommit=True, row_factory=dict_row, options=options)


@pytest.fixture
def behind_a_pooler(database_url: str) -> Iterator[Connection]:
    """A session whose settings of its own were dropped on the way."""
    with connected(database_url) as connection:
        yield connection


def told(connection: Connection, **settings: str) -> str:
    """What is missing where the role brings these settings; empty where nothing is."""
    for name, value in settings.items():
        connection.execute("SELECT set_config(%s, %s, false)", [name, value])
    try:
        session.verify_session_settings(connection, **BOUNDS)
    except ConfigurationError as error:
        return str(error)
    return ""


def test_a_session_with_its_own_settings_is_accepted_and_prepares_statements(database_url: str) -> None:
    with connected(database_url, session.options(**BOUNDS, synchronous_commit=True)) as connection:
        assert told(connection) == ""
        assert connection.prepare_threshold is not None


def test_a_session_without_them_is_refused_in_one_line_that_says_what_the_role_needs(
    behind_a_pooler: Connection,
) -> None:
    line = told(behind_a_pooler)
    assert "\n" not in line
    role = behind_a_pooler.info.user
    for name, value in ROLE.items():
        assert f'ALTER ROLE "{role}" SET {name} = {value}' in line


def test_a_session_whose_role_has_them_is_accepted_and_prepares_nothing(behind_a_pooler: Connection) -> None:
    assert told(behind_a_pooler, **ROLE) == ""
    assert behind_a_pooler.prepare_threshold is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("statement_timeout", "0"),
        ("lock_timeout", "3600000"),
        ("synchronous_commit", "off"),
        ("synchronous_commit", "local"),
        ("default_transaction_isolation", "serializable"),
    ],
)
def test_each_unsafe_setting_is_named(behind_a_pooler: Connection, name: str, value: str) -> None:
    line = told(behind_a_pooler, **{**ROLE, name: value})
    assert line.count("ALTER ROLE") == 1
    assert f"SET {name} = " in line
