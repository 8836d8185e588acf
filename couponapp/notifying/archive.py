"""The outbox stays as small as what is under way: what was sent long ago goes into the archive."""

from __future__ import annotations

import logging
import time

from couponapp.storage.pool import Pool

log = logging.getLogger(__name__)

UPKEEP_QUEUE = "notifications-upkeep"
ARCHIVE_EVERY_S = 60.0
# A round is short, since it runs between a channel's jobs; the next one goes on.
ROUND_S = 2.0
WINDOW = 1_000

# Along the primary key, a window at a time: ids and times grow together, so the old ones come
# first and no index is needed that every message would have to be written into. Rows that are not
# sent, such as dead letters, are passed by. The deliveries go with their row.
ARCHIVE = """
WITH seen AS MATERIALIZED (
    SELECT id, created_at, sent_at FROM outbox WHERE id > %(after_id)s ORDER BY id LIMIT %(window)s
),
gone AS (
    DELETE FROM outbox o USING seen
    WHERE o.id = seen.id AND seen.sent_at < now() - make_interval(days => %(keep_days)s)
    RETURNING o.id, o.kind, o.issuance_id, o.created_at, o.sent_at
),
kept AS (
    INSERT INTO outbox_archive (id, kind, issuance_id, created_at, sent_at)
    SELECT id, kind, issuance_id, created_at, sent_at FROM gone
)
SELECT (SELECT count(*) FROM gone) AS archived, max(id) AS last_id,
       count(*) FILTER (WHERE created_at < now() - make_interval(days => %(keep_days)s)) AS old
FROM seen
"""


def archive(pool: Pool, *, keep_days: int, window: int = WINDOW, round_s: float = ROUND_S) -> int:
    """Move rows into the archive that were sent more than `keep_days` days ago.

    Args:
        pool: autocommit connections.
        keep_days: how long they stay, in days.
        window: rows to look at in one statement.
        round_s: begins no other statement after so many seconds.

    Returns:
        How many were moved.
    """
    end_s = time.monotonic() + round_s
    after_id = moved = 0
    while True:
        row = pool.fetch_one(ARCHIVE, {"after_id": after_id, "window": window, "keep_days": keep_days})
        assert row is not None
        moved += int(row["archived"])
        # Not one old row in the window: those behind it are younger still.
        if not row["old"] or time.monotonic() >= end_s:
            break
        after_id = row["last_id"]
    if moved:
        log.info("archived %d messages that were sent more than %d days ago", moved, keep_days)
    return moved


_pools: list[Pool] = []


def configure(pool: Pool) -> None:
    """Tell the jobs of this process what to work with. RQ can pass them numbers only."""
    _pools[:] = [pool]


def run(keep_days: int) -> None:
    """Archive for a while: what RQ calls."""
    archive(_pools[0], keep_days=keep_days)
