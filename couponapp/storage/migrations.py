"""Applies the SQL migrations `migrations/NNNN_name.sql`, forward only.

Why no library is used: docs/decisions/0003.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import psycopg

from couponapp.errors import ConfigurationError
from couponapp.storage.driver import translated_errors

MIGRATIONS_DIR = Path(__file__).resolve().parents[2] / "migrations"

# The oldest release that the PostgreSQL project maintains at the end of 2026, and that the tests run against.
MIN_SERVER_VERSION = 15

# Any constant, as long as every migrating process uses the same: "coupon" in ASCII.
_LOCK_KEY = 0x636F75706F6E
_LOCK_TIMEOUT_MS = 60_000

# For this transaction only: behind a pooler neither settings at connect nor those of a session last.
SET_TIMEOUTS = "SELECT set_config('lock_timeout', %s, true), set_config('statement_timeout', '0', true)"
TAKE_LOCK = "SELECT pg_advisory_xact_lock(%s)"
CREATE_LEDGER = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version integer PRIMARY KEY,
    name text NOT NULL,
    sha256 text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""
READ_LEDGER = "SELECT version, sha256 FROM schema_migrations"
WRITE_LEDGER = "INSERT INTO schema_migrations (version, name, sha256) VALUES (%s, %s, %s)"


@dataclass(frozen=True)
class Migration:
    """One file of `migrations/`."""

    version: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """The checksum by which an edit after the application is detected."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def read_migrations(directory: Path = MIGRATIONS_DIR) -> list[Migration]:
    """Return all migrations in order.

    Raises:
        ConfigurationError: a file's name is wrong, or a number is missing or used twice.
    """
    found = []
    for path in sorted(directory.glob("*.sql")):
        match = re.fullmatch(r"([0-9]{4})_([a-z0-9_]+)\.sql", path.name)
        if not match:
            raise ConfigurationError(f"{path}: a migration is named NNNN_name.sql")
        found.append(Migration(int(match[1]), match[2], path.read_text(encoding="utf-8")))
    if [m.version for m in found] != list(range(1, len(found) + 1)):
        raise ConfigurationError(f"{directory}: migrations must be numbered 0001, 0002, … without gaps")
    return found


def migrate(url: str, directory: Path = MIGRATIONS_DIR) -> list[Migration]:
    """Apply all missing migrations.

    They are applied in one transaction, under an advisory lock that PostgreSQL releases at its end. So
    concurrent calls are safe, and a call that is killed has no effect and can be repeated.

    Args:
        url: PostgreSQL's address.
        directory: holds the files.

    Returns:
        The migrations that this call applied, in order.

    Raises:
        ConfigurationError: the server is too old, the role may not create tables, or an applied
            migration was edited.
        couponapp.errors.Unavailable: PostgreSQL does not answer.
    """
    try:
        return _migrate(url, directory)
    except psycopg.errors.InsufficientPrivilege as error:
        reason = " ".join(str(error).split())
        raise ConfigurationError(f"DATABASE_URL: its role may not create tables: {reason}") from error


def _migrate(url: str, directory: Path) -> list[Migration]:
    migrations = read_migrations(directory)
    # No prepared statements: behind a pooler their names may be in use.
    with translated_errors(), psycopg.connect(url, connect_timeout=5, prepare_threshold=None) as db:
        _check_server_version(db)
        with db.transaction():
            db.execute(SET_TIMEOUTS, [str(_LOCK_TIMEOUT_MS)])
            db.execute(TAKE_LOCK, [_LOCK_KEY])
            db.execute(CREATE_LEDGER)
            applied: dict[int, str] = dict(db.execute(READ_LEDGER).fetchall())
            missing = [m for m in migrations if m.version not in applied]
            _refuse_edited(migrations, applied)
            for migration in missing:
                db.execute(migration.sql.encode())
                db.execute(WRITE_LEDGER, [migration.version, migration.name, migration.sha256])
    return missing


def _check_server_version(db: psycopg.Connection[tuple[object, ...]]) -> None:
    version = db.info.server_version // 10_000
    if version < MIN_SERVER_VERSION:
        raise ConfigurationError(
            f"DATABASE_URL: the server is PostgreSQL {version}; {MIN_SERVER_VERSION} or newer is needed"
        )


def _refuse_edited(migrations: list[Migration], applied: dict[int, str]) -> None:
    for migration in migrations:
        if applied.get(migration.version, migration.sha256) != migration.sha256:
            raise ConfigurationError(
                f"migrations/{migration.version:04}_{migration.name}.sql was edited after it was applied"
            )
