"""The outbox table: one row per notification, fanned out into one delivery per channel."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from couponapp.storage.pool import Pool


@dataclass(frozen=True)
class Notification:
    """The facts of one notification.

    Attributes:
        outbox_id: id of its outbox row.
        kind: type of the event, for example `issuance.issued`.
        created_at: when the event happened.
    """

    outbox_id: int
    kind: str
    created_at: datetime
    issuance_id: int
    coupon_id: int
    coupon_name: str
    user_id: str
    code: str
    issued_at: datetime
    expires_at: datetime

    @property
    def key(self) -> str:
        """Idempotency key for the receiver: the same on every try. Letters, digits and `_`."""
        return f"{self.kind.replace('.', '_')}_{self.issuance_id}"


# The column is called `planned_at`: renaming it would break workers of the previous version during a rolling upgrade.
NOT_FANNED_OUT = "planned_at IS NULL"

# Rows that another relay has locked are skipped. A single statement: a row gets all of its deliveries or none.
FAN_OUT = f"""
WITH fresh AS (
    SELECT id FROM outbox WHERE {NOT_FANNED_OUT} ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
),
fanned_out AS (
    UPDATE outbox o SET planned_at = now(), channels_left = cardinality(%(channels)s::text[])
    FROM fresh WHERE o.id = fresh.id
    RETURNING o.id, o.issuance_id, o.created_at
)
INSERT INTO deliveries (outbox_id, channel, coupon_id, created_at, due_at, give_up_at)
SELECT f.id, c.channel, i.coupon_id, f.created_at, f.created_at, now() + make_interval(secs => %(give_up_s)s)
FROM fanned_out f
JOIN issuances i ON i.id = f.issuance_id
CROSS JOIN unnest(%(channels)s::text[]) AS c (channel)
"""


def fan_out(pool: Pool, channels: tuple[str, ...], *, limit: int, give_up_s: float) -> int:
    """Create the deliveries of new outbox rows, oldest first.

    Args:
        pool: autocommit connections.
        channels: names; each row gets one delivery per channel.
        limit: maximum number of outbox rows.
        give_up_s: a delivery that fails later than this, in seconds from now, is not retried.

    Returns:
        The number of deliveries created.
    """
    return pool.execute(FAN_OUT, {"channels": list(channels), "limit": limit, "give_up_s": give_up_s})
