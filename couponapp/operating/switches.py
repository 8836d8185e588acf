"""What an operator decides while the service runs: switches, each a name and a value."""

from __future__ import annotations

from couponapp.errors import InvalidRequest
from couponapp.storage.pool import Pool, Row

# What the circuit breaker around issuing is forced to: open, closed, or auto for its own rules.
ISSUE_BREAKER = "breaker.issue"

MAX_NOTE_LENGTH = 200

TURN = """
INSERT INTO switches (name, value, note) VALUES (%(name)s, %(value)s, %(note)s)
ON CONFLICT (name) DO UPDATE SET value = excluded.value, note = excluded.note, changed_at = excluded.changed_at
"""


def turn(pool: Pool, name: str, value: str, *, note: str = "") -> None:
    """Turn a switch; effective in every web process within a second.

    Args:
        pool: where to write.
        name: which one.
        value: to what; its reader says what it means.
        note: who did it and why, for those who find it later; up to 200 printable characters.

    Raises:
        InvalidRequest: the note is too long or cannot be printed.
    """
    if len(note) > MAX_NOTE_LENGTH or (note and not note.isprintable()):
        raise InvalidRequest(f"note: up to {MAX_NOTE_LENGTH} printable characters")
    pool.execute(TURN, {"name": name, "value": value, "note": note})


SHOW = "SELECT name, value, note, changed_at FROM switches WHERE name = %(name)s"


def show(pool: Pool, name: str) -> Row | None:
    """One switch: `name`, `value`, `note` and `changed_at`; None where it was never turned."""
    return pool.fetch_one(SHOW, {"name": name})


READ_ALL = "SELECT name, value FROM switches"


def read_all(pool: Pool) -> dict[str, str]:
    """The values of all switches that were ever turned, by name."""
    return {str(row["name"]): str(row["value"]) for row in pool.fetch_all(READ_ALL)}
