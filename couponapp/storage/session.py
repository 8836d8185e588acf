"""What each session must be like, and the look that says whether it is.

A pooler in transaction mode (PgBouncer) drops the settings that a session asks for at connect, and
forgets prepared statements between two of them: docs/decisions/0027. So each new connection is
asked once whether its settings have arrived. Where they have not, it gets along without prepared
statements, and the role must bring the settings; where it does not, the connection is refused with
one line that says what to do.
"""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
from psycopg.rows import DictRow

from couponapp.errors import ConfigurationError

# A setting of no meaning to PostgreSQL: what asks for it at connect finds it later, or does not.
MARK = "couponapp.session"
ISOLATION = "read committed"
# `on` is on disk, on that of a synchronous standby too; `remote_apply` is more.
COMMITTED = ("on", "remote_apply")
# Behind a pooler all pools have their role's timeouts. A statement may go on for so long, in
# milliseconds, after its caller has left at his own deadline.
LONGEST_MS = 10_000

HAS_ARRIVED = f"SELECT current_setting('{MARK}', true) = 'on' AS arrived"
SETTINGS = """
SELECT name, setting FROM pg_settings WHERE name IN (
    'statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout',
    'default_transaction_isolation', 'synchronous_commit'
)
"""


def options(*, statement_ms: int, lock_ms: int, idle_ms: int, synchronous_commit: bool = True) -> str:
    """The `options` of libpq: the session is born with its timeouts, no SET per request.

    And with what the issue statement relies on, whatever the server's defaults are: its isolation
    level, and that «committed» means on disk.

    Args:
        statement_ms: for a whole statement, in milliseconds.
        lock_ms: for a lock, in milliseconds.
        idle_ms: between two statements of one transaction, in milliseconds.
        synchronous_commit: see `couponapp.storage.pool.Pool`.
    """
    commit = "on" if synchronous_commit else "off"
    return (
        f"-c statement_timeout={statement_ms} -c lock_timeout={lock_ms}"
        f" -c idle_in_transaction_session_timeout={idle_ms}"
        rf" -c default_transaction_isolation=read\ committed -c synchronous_commit={commit}"
        f" -c {MARK}=on"
    )


def verify_session_settings(
    connection: psycopg.Connection[DictRow], *, statement_ms: int, lock_ms: int, idle_ms: int
) -> None:
    """Look at a new connection; arguments as in `options`.

    Raises:
        ConfigurationError: a pooler stands between, and the role lacks settings.
        psycopg.Error: it does not answer.
    """
    row = connection.execute(HAS_ARRIVED).fetchone()
    if row is not None and row["arrived"]:
        return
    connection.prepare_threshold = None
    found = {row["name"]: str(row["setting"]) for row in connection.execute(SETTINGS)}
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
        if not 0 < int(found[name]) <= max(LONGEST_MS, wanted_ms):
            yield f"{name} = {wanted_ms}"


def _unsafe(found: dict[str, str]) -> Iterator[str]:
    if found["default_transaction_isolation"] != ISOLATION:
        yield f"default_transaction_isolation = '{ISOLATION}'"
    if found["synchronous_commit"] not in COMMITTED:
        yield f"synchronous_commit = {COMMITTED[0]}"
