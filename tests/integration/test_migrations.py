"""Migrations: run concurrently, killed, edited afterwards."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from couponapp.errors import ConfigurationError
from couponapp.storage import migrations
from couponapp.storage.migrations import migrate
from tests.support.databases import Databases
from tests.support.servers import wait_until

LEDGER = "SELECT version, name FROM schema_migrations ORDER BY version"


@pytest.fixture
def empty_url(databases: Databases) -> Iterator[str]:
    """A database that no migration has touched."""
    with databases.fresh(migrated=False) as url:
        yield url


def write(directory: Path, **files: str) -> Path:
    for name, sql in files.items():
        (directory / f"{name.removeprefix('m')}.sql").write_text(sql)
    return directory


def ask(url: str, sql: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as db:
        return db.execute(sql.encode()).fetchall()


def test_an_empty_database_gets_all_migrations_and_the_second_run_applies_none(empty_url: str) -> None:
    expected = [(m.version, m.name) for m in migrations.read_migrations()]
    assert [(m.version, m.name) for m in migrate(empty_url)] == expected
    assert migrate(empty_url) == []
    assert ask(empty_url, LEDGER) == expected


def test_concurrent_runs_apply_each_migration_once(empty_url: str, tmp_path: Path) -> None:
    write(tmp_path, m0001_a="CREATE TABLE a (n int); INSERT INTO a VALUES (1)", m0002_b="INSERT INTO a VALUES (2)")
    start = threading.Barrier(8, timeout=20)

    def run(_: int) -> int:
        start.wait()
        return len(migrate(empty_url, tmp_path))

    with ThreadPoolExecutor(8) as executor:
        assert sorted(executor.map(run, range(8))) == [0] * 7 + [2]
    assert ask(empty_url, "SELECT n FROM a ORDER BY n") == [(1,), (2,)]


def test_without_the_lock_concurrent_runs_collide(
    empty_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The negative control: the lock is what makes the test above pass. The first one is held up
    # inside its migration until the second has read the same empty ledger.
    monkeypatch.setattr(migrations, "TAKE_LOCK", "SELECT %s::bigint")
    with psycopg.connect(empty_url) as db:
        db.execute(migrations.CREATE_LEDGER.encode())
    write(tmp_path, m0001_a="CREATE TABLE a (n int); SELECT pg_advisory_xact_lock_shared(4711)")
    with psycopg.connect(empty_url) as gate, ThreadPoolExecutor(2) as executor:
        gate.execute("SELECT pg_advisory_xact_lock(4711)")
        both = [executor.submit(migrate, empty_url, tmp_path) for _ in range(2)]
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        wait_until(lambda: ask(empty_url, waiting)[0][0] == 2, timeout_s=10, what="both are under way")
        gate.rollback()
        assert [type(one.exception()) for one in both].count(type(None)) == 1


def test_a_run_that_was_killed_can_be_repeated(empty_url: str, tmp_path: Path) -> None:
    write(tmp_path, m0001_a="CREATE TABLE a (n int)", m0002_b="CREATE TABLE b (n int); SELECT pg_sleep(60)")
    with ThreadPoolExecutor(1) as executor:
        killed = executor.submit(migrate, empty_url, tmp_path)
        sleeping = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
        wait_until(lambda: ask(empty_url, sleeping), timeout_s=10, what="it is half-way")
        ask(empty_url, f"SELECT pg_terminate_backend(pid) FROM ({sleeping}) AS s")
        assert killed.exception() is not None
    assert ask(empty_url, "SELECT to_regclass('a'), to_regclass('b')") == [(None, None)]
    write(tmp_path, m0002_b="CREATE TABLE b (n int)")
    assert [m.version for m in migrate(empty_url, tmp_path)] == [1, 2]


def test_a_wrong_statement_leaves_the_database_unchanged(empty_url: str, tmp_path: Path) -> None:
    write(tmp_path, m0001_a="CREATE TABLE a (n int); CREATE TABLE oops")
    with pytest.raises(psycopg.errors.SyntaxError):
        migrate(empty_url, tmp_path)
    assert ask(empty_url, "SELECT to_regclass('a')") == [(None,)]


def test_an_edited_migration_stops_the_start(empty_url: str, tmp_path: Path) -> None:
    migrate(empty_url, write(tmp_path, m0001_a="CREATE TABLE a (n int)"))
    with pytest.raises(ConfigurationError, match=r"0001_a\.sql was edited after it was applied"):
        migrate(empty_url, write(tmp_path, m0001_a="CREATE TABLE a (n bigint)"))
