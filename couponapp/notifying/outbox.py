"""The outbox table: what is to be told. What becomes of it lies in `couponapp.notifying.deliveries`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from couponapp.storage.pool import Pool


@dataclass(frozen=True)
class Notification:
    """What there is to tell.

    Attributes:
        outbox_id: the row that it comes from.
        created_at: when it happened.
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
        """The idempotency key towards a channel: the same for every try. Letters, digits, `_`."""
        return f"{self.kind.replace('.', '_')}_{self.issuance_id}"


# In order, past rows that another relay holds. One statement, so a row becomes all of its
# deliveries or none.
PLAN = """
WITH fresh AS (
    SELECT id FROM outbox WHERE planned_at IS NULL ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
),
planned AS (
    UPDATE outbox o SET planned_at = now(), channels_left = cardinality(%(channels)s::text[])
    FROM fresh WHERE o.id = fresh.id
    RETURNING o.id, o.issuance_id, o.created_at
)
INSERT INTO deliveries (outbox_id, channel, coupon_id, created_at, due_at, give_up_at)
SELECT p.id, c.channel, i.coupon_id, p.created_at, p.created_at, now() + make_interval(secs => %(give_up_s)s)
FROM planned p
JOIN issuances i ON i.id = p.issuance_id
CROSS JOIN unnest(%(channels)s::text[]) AS c (channel)
"""


def plan(pool: Pool, channels: tuple[str, ...], *, limit: int, give_up_s: float) -> int:
    """Make deliveries from new outbox rows, oldest first.

    Args:
        pool: autocommit connections.
        channels: one delivery for each.
        limit: the most outbox rows.
        give_up_s: after that many seconds a delivery that fails is not tried again.

    Returns:
        How many deliveries there are to make.
    """
    return pool.execute(PLAN, {"channels": list(channels), "limit": limit, "give_up_s": give_up_s})
