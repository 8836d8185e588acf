"""The settings of each PostgreSQL session: requested at connect, then verified.

A pooler in transaction mode (PgBouncer) drops settings that are requested at connect and does not keep
prepared statements: docs/decisions/0027. So each new connection is queried once for a marker setting.
If it is missing, the connection uses no prepared statements and the role must have the settings; if
the role lacks them, the connection is refused with one line that says what to do.
"""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
from psycopg.rows import DictRow

from couponapp.errors import ConfigurationError

# A custom setting that means nothing to PostgreSQL. It is set exactly if the settings at connect were applied.
MARKER = "couponapp.session"
ISOLATION = "read committed"
# Values of `synchronous_commit` with which a commit is on disk, also on that of a synchronous standby.
DURABLE = ("on", "remote_apply")
# Behind a pooler all pools have the timeouts of their role. A statement may run for this long, in
# milliseconds, although its caller has given up at its deadline.
MAX_ROLE_TIMEOUT_MS = 10_000

READ_MARKER = f"SELECT current_setting('{MARKER}', true) = 'on' AS applied"
READ_SETTINGS = """
SELECT name, setting FROM pg_settings WHERE name IN (
    'statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout',
    'default_transaction_isolation', 'synchronous_commit'
)
"""


def options(*, statement_ms: int, lock_ms: int, idle_ms: int, synchronous_commit: bool = True) -> str:
    """Return libpq's `options`, which set a session's settings at connect instead of per request.

    They are the timeouts, and what the issue statement relies on whatever the server's defaults are: the
    isolation level, and that a commit is on disk.

    Args:
        statement_ms: bound of a whole statement, in milliseconds.
        lock_ms: bound of a wait for a lock, in milliseconds.
        idle_ms: bound of the time between two statements of one transaction, in milliseconds.
        synchronous_commit: whether a commit waits until it is on disk.
    """
    commit = "on" if synchronous_commit else "off"
    return (
        f"-c statement_timeout={statement_ms} -c lock_timeout={lock_ms}"
        f" -c idle_in_transaction_session_timeout={idle_ms}"
        rf" -c default_transaction_isolation=read\ committed -c synchronous_commit={commit}"
        f" -c {MARKER}=on"
    )


def verify_session_settings(
    connection: psycopg.Connection[DictRow], *, statement_ms: int, lock_ms: int, idle_ms: int
) -> None:
    """Verify a new connection's settings; arguments as in `options`.

    Raises:
        ConfigurationError: the address leads to a pooler, and the role lacks settings.
        psycopg.Error: the server does not answer.
    """
    row = connection.execute(READ_MARKER).fetchone()
    if row is not None and row["applied"]:
        return
    connection.prepare_threshold = None
    found = {row["name"]: str(row["setting"]) for row in connection.execute(READ_SETTINGS)}
    wanted = {
        "statement_timeout": statement_ms,
        "lock_timeout": lock_ms,
        "idle_in_transaction_session_timeout": idle_ms,
    }
    if missing := [*_unbounded(found, wanted), *_unsafe(found)]:
        role = connection.info.user.replace('"', '""')
        raise ConfigurationError(
            "DATABASE_URL leads to a pooler, which drops the settings of its clients; PostgreSQL needs "
            + "; ".join(f'ALTER ROLE "{role}" SET {setting}' for setting in missing)
        )


def _unbounded(found: dict[str, str], wanted: dict[str, int]) -> Iterator[str]:
    for name, wanted_ms in wanted.items():
        if not 0 < int(found[name]) <= max(MAX_ROLE_TIMEOUT_MS, wanted_ms):
            yield f"{name} = {wanted_ms}"


def _unsafe(found: dict[str, str]) -> Iterator[str]:
    if found["default_transaction_isolation"] != ISOLATION:
        yield f"default_transaction_isolation = '{ISOLATION}'"
    if found["synchronous_commit"] not in DURABLE:
        yield f"synchronous_commit = {DURABLE[0]}"
