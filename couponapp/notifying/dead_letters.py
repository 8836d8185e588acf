"""Dead letters: messages that a channel will not accept, until somebody decides about them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from couponapp.errors import MessageNotFound
from couponapp.storage.pool import Pool, Row

DEAD = """
SELECT d.outbox_id AS id, d.channel, o.kind, i.coupon_id, i.id AS issuance_id, i.user_id, d.tries, d.dead_at, d.reason
FROM deliveries d
JOIN outbox o ON o.id = d.outbox_id
JOIN issuances i ON i.id = o.issuance_id
WHERE d.dead_at IS NOT NULL
ORDER BY d.dead_at, d.outbox_id, d.channel
LIMIT %(limit)s
"""


def oldest(pool: Pool, *, limit: int) -> list[Row]:
    """The dead letters, oldest first, at most `limit`."""
    return pool.fetch_all(DEAD, {"limit": limit})


RETRY = """
UPDATE deliveries SET dead_at = NULL, tries = 0, failures = 0, due_at = now(),
                      give_up_at = now() + make_interval(secs => %(give_up_s)s)
WHERE dead_at IS NOT NULL AND (%(ids)s::bigint[] IS NULL OR outbox_id = ANY(%(ids)s))
RETURNING outbox_id
"""


def retry(pool: Pool, outbox_ids: Sequence[int] | None, *, give_up_s: float) -> int:
    """Let dead letters be tried anew, with all their tries.

    Args:
        pool: autocommit connections.
        outbox_ids: which; all when None.
        give_up_s: how long they are tried, in seconds.

    Returns:
        How many deliveries that is.

    Raises:
        MessageNotFound: one of the ids is no dead letter. Nothing is retried then.
    """
    params = {"ids": None if outbox_ids is None else list(outbox_ids), "give_up_s": give_up_s}
    with pool.connection() as connection, connection.transaction():
        rows = connection.execute(RETRY, params).fetchall()
        _refuse_unknown(outbox_ids, (row["outbox_id"] for row in rows))
    return len(rows)


# The outbox rows first, in order, as for «sent»: a channel that accepts the message just now is
# waited for, and seen by the next statement.
LOCK = """
SELECT id FROM outbox WHERE id IN (
    SELECT outbox_id FROM deliveries
    WHERE dead_at IS NOT NULL AND (%(ids)s::bigint[] IS NULL OR outbox_id = ANY(%(ids)s))
)
ORDER BY id FOR NO KEY UPDATE
"""

# What no channel has accepted is not sent, and stays so.
DROP = """
WITH gone AS (
    DELETE FROM deliveries WHERE dead_at IS NOT NULL AND outbox_id = ANY(%(ids)s) RETURNING outbox_id
),
counted AS (SELECT outbox_id, count(*) AS channels FROM gone GROUP BY outbox_id)
UPDATE outbox o SET channels_left = o.channels_left - c.channels, sent_at = CASE
    WHEN o.channels_left = c.channels
        AND EXISTS (SELECT FROM deliveries d WHERE d.outbox_id = o.id AND d.sent_at IS NOT NULL) THEN now()
    END
FROM counted c WHERE o.id = c.outbox_id
RETURNING c.channels
"""


def drop(pool: Pool, outbox_ids: Sequence[int] | None) -> int:
    """Give dead letters up for good. A message that other channels have accepted counts as sent then.

    Args:
        pool: autocommit connections.
        outbox_ids: which; all when None.

    Returns:
        How many deliveries that is.

    Raises:
        MessageNotFound: one of the ids is no dead letter. Nothing is dropped then.
    """
    with pool.connection() as connection, connection.transaction():
        params = {"ids": None if outbox_ids is None else list(outbox_ids)}
        found = [row["id"] for row in connection.execute(LOCK, params).fetchall()]
        _refuse_unknown(outbox_ids, found)
        return sum(row["channels"] for row in connection.execute(DROP, {"ids": found}).fetchall())


def _refuse_unknown(asked: Sequence[int] | None, found: Iterable[int]) -> None:
    if missing := sorted(set(asked or ()) - set(found)):
        raise MessageNotFound(f"no dead letter has the id {missing[0]}")
