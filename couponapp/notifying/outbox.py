"""The outbox table as the relay and the job see it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from couponapp.storage.pool import Connection, Pool

# In order, past rows that another relay holds. A lease that ran out makes a row free again, so
# whatever RQ or a dead process lost comes back.
LEASE = """
UPDATE outbox SET leased_until = now() + make_interval(secs => %(lease_s)s)
WHERE id IN (
    SELECT id FROM outbox
    WHERE sent_at IS NULL AND (leased_until IS NULL OR leased_until < now())
    ORDER BY id
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
RETURNING id
"""


def lease(connection: Connection, *, limit: int, lease_s: float) -> list[int]:
    """Take unsent rows for `lease_s` seconds, oldest first. Part of the caller's transaction."""
    rows = connection.execute(LEASE, {"limit": limit, "lease_s": lease_s}).fetchall()
    return sorted(row["id"] for row in rows)


@dataclass(frozen=True)
class Notice:
    """What there is to tell.

    Attributes:
        outbox_id: also the idempotency key towards a channel.
    """

    outbox_id: int
    kind: str
    issuance_id: int
    coupon_id: int
    coupon_name: str
    user_id: str
    code: str
    issued_at: datetime
    expires_at: datetime


READ = """
SELECT o.id AS outbox_id, o.kind, i.id AS issuance_id, i.coupon_id, c.name AS coupon_name,
       i.user_id, i.code, i.issued_at, i.expires_at
FROM outbox o
JOIN issuances i ON i.id = o.issuance_id
JOIN coupons c ON c.id = i.coupon_id
WHERE o.id = ANY(%(ids)s) AND o.sent_at IS NULL
ORDER BY o.id
"""


def read_unsent(pool: Pool, outbox_ids: list[int]) -> list[Notice]:
    """The content of those rows that have not been sent yet, in order."""
    return [Notice(**row) for row in pool.fetch_all(READ, {"ids": outbox_ids})]


MARK_SENT = "UPDATE outbox SET sent_at = now() WHERE id = ANY(%(ids)s) AND sent_at IS NULL"


def mark_sent(pool: Pool, outbox_ids: list[int]) -> None:
    """Note that a channel has accepted the messages. Twice is as good as once."""
    pool.execute(MARK_SENT, {"ids": outbox_ids})


# The partial index answers this, however many have been sent.
WAITING = "SELECT count(*) AS waiting FROM outbox WHERE sent_at IS NULL"


def waiting(pool: Pool) -> int:
    """How many messages have not been sent yet."""
    row = pool.fetch_one(WAITING)
    assert row is not None
    return int(row["waiting"])
