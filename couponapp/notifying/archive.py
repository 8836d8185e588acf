"""Keeps the outbox small: rows that were sent long ago move to `outbox_archive`."""

from __future__ import annotations

import logging
import time

from couponapp.storage.pool import Pool

log = logging.getLogger(__name__)

UPKEEP_QUEUE = "notifications-upkeep"
ARCHIVE_EVERY_S = 60.0
# A round is short because it runs between a channel's jobs; the next one continues.
ROUND_S = 2.0
WINDOW = 1_000

# Walks the primary key, a window at a time: ids and times grow together, so old rows come first and
# no further index is needed. Rows that are not sent, such as dead letters, stay. Deliveries are
# deleted with their outbox row.
ARCHIVE = """
WITH candidates AS MATERIALIZED (
    SELECT id, created_at, sent_at FROM outbox WHERE id > %(after_id)s ORDER BY id LIMIT %(window)s
),
deleted AS (
    DELETE FROM outbox o USING candidates c
    WHERE o.id = c.id AND c.sent_at < now() - make_interval(days => %(keep_days)s)
    RETURNING o.id, o.kind, o.issuance_id, o.created_at, o.sent_at
),
archived AS (
    INSERT INTO outbox_archive (id, kind, issuance_id, created_at, sent_at)
    SELECT id, kind, issuance_id, created_at, sent_at FROM deleted
)
SELECT (SELECT count(*) FROM deleted) AS archived, max(id) AS last_id,
       count(*) FILTER (WHERE created_at < now() - make_interval(days => %(keep_days)s)) AS old
FROM candidates
"""


def archive(pool: Pool, *, keep_days: int, window: int = WINDOW, round_s: float = ROUND_S) -> int:
    """Move rows that were sent more than `keep_days` days ago into the archive.

    Args:
        pool: autocommit connections.
        keep_days: age in days up to which sent rows stay.
        window: rows examined per statement.
        round_s: start no further statement after this many seconds.

    Returns:
        The number of rows moved.
    """
    end_s = time.monotonic() + round_s
    after_id = moved = 0
    while True:
        row = pool.fetch_one(ARCHIVE, {"after_id": after_id, "window": window, "keep_days": keep_days})
        assert row is not None
        moved += int(row["archived"])
        # A window without old rows: all rows behind it are younger.
        if not row["old"] or time.monotonic() >= end_s:
            break
        after_id = row["last_id"]
    if moved:
        log.info("archived %d notifications that were sent more than %d days ago", moved, keep_days)
    return moved


_pools: list[Pool] = []


def configure(pool: Pool) -> None:
    """Set the pool that jobs of this process use: RQ can pass numbers only."""
    _pools[:] = [pool]


def run(keep_days: int) -> None:
    """Archive for one round. RQ calls this."""
    archive(_pools[0], keep_days=keep_days)
