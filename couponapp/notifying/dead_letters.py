"""Dead letters: deliveries that are not tried again until an operator decides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from couponapp.errors import MessageNotFound
from couponapp.notifying.state import DeliveryState
from couponapp.storage.pool import Pool, Row

OLDEST = f"""
SELECT d.outbox_id AS id, d.channel, o.kind, i.coupon_id, i.id AS issuance_id, i.user_id, d.tries, d.dead_at, d.reason
FROM deliveries d
JOIN outbox o ON o.id = d.outbox_id
JOIN issuances i ON i.id = o.issuance_id
WHERE {DeliveryState.DEAD}
ORDER BY d.dead_at, d.outbox_id, d.channel
LIMIT %(limit)s
"""


def oldest(pool: Pool, *, limit: int) -> list[Row]:
    """Return the dead letters, oldest first, at most `limit`."""
    return pool.fetch_all(OLDEST, {"limit": limit})


_CHOSEN = f"{DeliveryState.DEAD} AND (%(ids)s::bigint[] IS NULL OR outbox_id = ANY(%(ids)s))"

RETRY = f"""
UPDATE deliveries SET dead_at = NULL, tries = 0, failures = 0, due_at = now(),
                      give_up_at = now() + make_interval(secs => %(give_up_s)s)
WHERE {_CHOSEN}
RETURNING outbox_id
"""


def retry(pool: Pool, outbox_ids: Sequence[int] | None, *, give_up_s: float) -> int:
    """Make dead letters due again, with all their tries.

    Args:
        pool: autocommit connections.
        outbox_ids: of the dead letters; None for all.
        give_up_s: their new time limit, in seconds from now.

    Returns:
        The number of deliveries.

    Raises:
        MessageNotFound: an id has no dead letter. Nothing is retried then.
    """
    params = {"ids": None if outbox_ids is None else list(outbox_ids), "give_up_s": give_up_s}
    with pool.connection() as connection, connection.transaction():
        rows = connection.execute(RETRY, params).fetchall()
        _refuse_unknown(outbox_ids, (row["outbox_id"] for row in rows))
    return len(rows)


# Locks the outbox rows first, in the order of `deliveries.MARK_SENT`: the next statement then sees the
# result of a channel that is accepting the notification at this moment.
LOCK = f"""
SELECT id FROM outbox WHERE id IN (SELECT outbox_id FROM deliveries WHERE {_CHOSEN}) ORDER BY id FOR NO KEY UPDATE
"""

# A notification that no channel has accepted does not become sent.
DROP = f"""
WITH dropped AS (
    DELETE FROM deliveries WHERE {DeliveryState.DEAD} AND outbox_id = ANY(%(ids)s) RETURNING outbox_id
),
counted AS (SELECT outbox_id, count(*) AS channels FROM dropped GROUP BY outbox_id)
UPDATE outbox o SET channels_left = o.channels_left - c.channels, sent_at = CASE
    WHEN o.channels_left = c.channels
        AND EXISTS (SELECT FROM deliveries d WHERE d.outbox_id = o.id AND {DeliveryState.SENT}) THEN now()
    END
FROM counted c WHERE o.id = c.outbox_id
RETURNING c.channels
"""


def drop(pool: Pool, outbox_ids: Sequence[int] | None) -> int:
    """Delete dead letters. A notification that all its other channels have accepted becomes sent.

    Args:
        pool: autocommit connections.
        outbox_ids: of the dead letters; None for all.

    Returns:
        The number of deliveries.

    Raises:
        MessageNotFound: an id has no dead letter. Nothing is dropped then.
    """
    with pool.connection() as connection, connection.transaction():
        params = {"ids": None if outbox_ids is None else list(outbox_ids)}
        found = [row["id"] for row in connection.execute(LOCK, params).fetchall()]
        _refuse_unknown(outbox_ids, found)
        return sum(row["channels"] for row in connection.execute(DROP, {"ids": found}).fetchall())


def _refuse_unknown(asked: Sequence[int] | None, found: Iterable[int]) -> None:
    if missing := sorted(set(asked or ()) - set(found)):
        raise MessageNotFound(f"no dead letter has the id {missing[0]}")
