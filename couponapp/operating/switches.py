"""Switches: settings that an operator changes while the service runs, each a name and a value."""

from __future__ import annotations

from couponapp.errors import InvalidRequest
from couponapp.storage.pool import Pool, Row

# Forces the circuit breaker around issuing: open, closed, or auto for its own rules.
ISSUE_BREAKER = "breaker.issue"

MAX_NOTE_LENGTH = 200

SET = """
INSERT INTO switches (name, value, note) VALUES (%(name)s, %(value)s, %(note)s)
ON CONFLICT (name) DO UPDATE SET value = excluded.value, note = excluded.note, changed_at = excluded.changed_at
"""


def set_value(pool: Pool, name: str, value: str, *, note: str = "") -> None:
    """Set a switch; it takes effect in every web process within a second.

    Args:
        pool: where to write.
        name: the switch.
        value: the new value; a value that the reading process does not know has no effect there.
        note: who changes it and why, up to 200 printable characters.

    Raises:
        InvalidRequest: the note is too long or not printable.
    """
    if len(note) > MAX_NOTE_LENGTH or (note and not note.isprintable()):
        raise InvalidRequest(f"note: up to {MAX_NOTE_LENGTH} printable characters")
    pool.execute(SET, {"name": name, "value": value, "note": note})


SHOW = "SELECT name, value, note, changed_at FROM switches WHERE name = %(name)s"


def show(pool: Pool, name: str) -> Row | None:
    """Return one switch: `name`, `value`, `note` and `changed_at`; None if it was never set."""
    return pool.fetch_one(SHOW, {"name": name})


READ_ALL = "SELECT name, value FROM switches"


def read_all(pool: Pool) -> dict[str, str]:
    """Return the values of all switches that were ever set, by name."""
    return {str(row["name"]): str(row["value"]) for row in pool.fetch_all(READ_ALL)}
