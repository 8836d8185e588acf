"""The deliveries table: lease, claim and result of each notification on each channel.

The states and transitions are drawn in `couponapp.notifying.state`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from couponapp.notifying.outbox import NOT_FANNED_OUT, Notification
from couponapp.notifying.state import OPEN, DeliveryState
from couponapp.storage.pool import Connection, Pool

# Every coupon with due deliveries gets the same share, oldest first, so that a large event does not
# starve a small one. The recursion steps from coupon to coupon along the partial index: one look-up
# per coupon, however many deliveries wait. Rows that another relay has locked are skipped. A row
# whose lease has expired is due again, which brings back whatever RQ or a dead process has lost.
LEASE = f"""
WITH RECURSIVE heads AS (
    (SELECT coupon_id, due_at FROM deliveries WHERE channel = %(channel)s AND {OPEN}
     ORDER BY coupon_id, due_at LIMIT 1)
    UNION ALL
    SELECT following.coupon_id, following.due_at
    FROM heads CROSS JOIN LATERAL (
        SELECT coupon_id, due_at FROM deliveries
        WHERE channel = %(channel)s AND {OPEN} AND coupon_id > heads.coupon_id
        ORDER BY coupon_id, due_at LIMIT 1
    ) following
),
due AS (
    SELECT coupon_id, greatest(1, %(limit)s / count(*) OVER ()) AS share
    FROM heads WHERE due_at <= now() ORDER BY random() LIMIT %(limit)s
),
picked AS (
    SELECT oldest.outbox_id
    FROM due CROSS JOIN LATERAL (
        SELECT outbox_id FROM deliveries
        WHERE channel = %(channel)s AND {DeliveryState.DUE} AND coupon_id = due.coupon_id
        ORDER BY due_at, outbox_id LIMIT due.share
        FOR UPDATE SKIP LOCKED
    ) oldest
)
UPDATE deliveries d SET due_at = now() + make_interval(secs => %(lease_s)s)
FROM picked WHERE d.channel = %(channel)s AND d.outbox_id = picked.outbox_id
RETURNING d.outbox_id, d.tries > d.failures AS crash_suspect
"""


@dataclass(frozen=True)
class Leased:
    """Deliveries of one channel to hand over.

    Attributes:
        outbox_ids: oldest first, without the crash suspects.
        crash_suspects: outbox ids of deliveries during which a process has died. Each needs a job of its own.
    """

    outbox_ids: list[int]
    crash_suspects: list[int]

    def __len__(self) -> int:
        return len(self.outbox_ids) + len(self.crash_suspects)


def lease(connection: Connection, channel: str, *, limit: int, lease_s: float) -> Leased:
    """Lease due deliveries of one channel, as part of the caller's transaction.

    Args:
        connection: inside a transaction.
        channel: its name.
        limit: maximum number of deliveries, shared among the coupons.
        lease_s: seconds until the deliveries are due again.
    """
    rows = connection.execute(LEASE, {"channel": channel, "limit": limit, "lease_s": lease_s}).fetchall()
    return Leased(
        sorted(row["outbox_id"] for row in rows if not row["crash_suspect"]),
        sorted(row["outbox_id"] for row in rows if row["crash_suspect"]),
    )


@dataclass(frozen=True)
class ClaimedDelivery:
    """A notification that this process is about to send on its channel.

    Attributes:
        tries: number of this try, from 1.
        failures: how many earlier tries ended with an error. The others ended with their process.
        due_at: when the lease expires.
        left_s: seconds until then; negative if it has expired.
        given_up: the time limit is over: if this try fails, there is no other.
    """

    notification: Notification
    tries: int
    failures: int
    due_at: datetime
    left_s: float
    given_up: bool


# The try is counted before it is made, so that a try that kills its process counts too. The lease is not
# checked: a job may run before the relay has committed its lease, and waits here for the row's lock.
CLAIM = f"""
WITH claimed AS (
    UPDATE deliveries SET tries = tries + 1
    WHERE channel = %(channel)s AND outbox_id = ANY(%(ids)s) AND {OPEN}
    RETURNING outbox_id, tries, failures, due_at,
              extract(epoch FROM due_at - clock_timestamp())::float8 AS left_s, give_up_at <= now() AS given_up
)
SELECT t.tries, t.failures, t.due_at, t.left_s, t.given_up,
       o.id AS outbox_id, o.kind, o.created_at, i.id AS issuance_id, i.coupon_id, c.name AS coupon_name,
       i.user_id, i.code, i.issued_at, i.expires_at
FROM claimed t
JOIN outbox o ON o.id = t.outbox_id
JOIN issuances i ON i.id = o.issuance_id
JOIN coupons c ON c.id = i.coupon_id
ORDER BY o.id
"""
_TRY_COLUMNS = ("tries", "failures", "due_at", "left_s", "given_up")


def claim(pool: Pool, channel: str, outbox_ids: Sequence[int]) -> list[ClaimedDelivery]:
    """Begin a try of each delivery that is still open, in the order of the outbox."""
    rows = pool.fetch_all(CLAIM, {"channel": channel, "ids": list(outbox_ids)})
    return [
        ClaimedDelivery(**{name: row.pop(name) for name in _TRY_COLUMNS}, notification=Notification(**row))
        for row in rows
    ]


# The outbox rows are locked in order first: two channels that finish the same notifications could
# deadlock otherwise. The last channel to finish marks the outbox row as sent.
MARK_SENT = f"""
WITH locked AS MATERIALIZED (
    SELECT id FROM outbox WHERE id = ANY(%(ids)s) ORDER BY id FOR NO KEY UPDATE
),
done AS (
    UPDATE deliveries d SET sent_at = now(), reason = NULL
    FROM locked WHERE d.outbox_id = locked.id AND d.channel = %(channel)s AND {OPEN}
    RETURNING d.outbox_id, extract(epoch FROM clock_timestamp() - d.created_at)::float8 AS took_s
),
counted AS (
    UPDATE outbox o SET channels_left = o.channels_left - 1,
                        sent_at = CASE WHEN o.channels_left = 1 THEN now() END
    FROM done WHERE o.id = done.outbox_id
)
SELECT took_s FROM done
"""


def mark_sent(pool: Pool, channel: str, outbox_ids: Sequence[int]) -> list[float]:
    """Record that the channel has accepted the notifications. Idempotent.

    Returns:
        For each delivery that was not recorded before: seconds from the commit of its issuance until now.
    """
    rows = pool.fetch_all(MARK_SENT, {"channel": channel, "ids": sorted(outbox_ids)})
    return [row["took_s"] for row in rows]


@dataclass(frozen=True)
class Failure:
    """A try that ended with an error.

    Attributes:
        delay_s: seconds until the next try; None makes the delivery a dead letter.
    """

    outbox_id: int
    reason: str
    delay_s: float | None


RESCHEDULE = f"""
UPDATE deliveries d SET failures = d.failures + 1, reason = f.reason,
    due_at = CASE WHEN f.delay_s IS NULL THEN d.due_at ELSE now() + make_interval(secs => f.delay_s) END,
    dead_at = CASE WHEN f.delay_s IS NULL THEN now() END
FROM unnest(%(ids)s::bigint[], %(reasons)s::text[], %(delays)s::float8[]) AS f (outbox_id, reason, delay_s)
WHERE d.channel = %(channel)s AND d.outbox_id = f.outbox_id AND {OPEN}
"""


def reschedule(pool: Pool, channel: str, failures: Sequence[Failure]) -> None:
    """Record failures: each delivery is due again after its delay, or becomes a dead letter."""
    params = {
        "channel": channel,
        "ids": [one.outbox_id for one in failures],
        "reasons": [one.reason for one in failures],
        "delays": [one.delay_s for one in failures],
    }
    pool.execute(RESCHEDULE, params)


RELEASE_CLAIM = f"""
UPDATE deliveries SET tries = tries - 1, due_at = now() + make_interval(secs => %(delay_s)s)
WHERE channel = %(channel)s AND outbox_id = ANY(%(ids)s) AND {OPEN}
"""


def release_claim(pool: Pool, channel: str, outbox_ids: Sequence[int], delay_s: float) -> None:
    """Release claimed deliveries that were not tried; the try does not count.

    Args:
        pool: autocommit connections.
        channel: its name.
        outbox_ids: of the deliveries.
        delay_s: seconds until they are due again.
    """
    pool.execute(RELEASE_CLAIM, {"channel": channel, "ids": list(outbox_ids), "delay_s": delay_s})


# Only while this lease lasts: once it has expired, the deliveries may be leased to another job.
RELEASE_LEASE = f"""
UPDATE deliveries SET due_at = now() + make_interval(secs => %(delay_s)s)
WHERE channel = %(channel)s AND outbox_id = ANY(%(ids)s) AND due_at = %(lease)s AND {OPEN}
"""


def release_lease(pool: Pool, channel: str, outbox_ids: Sequence[int], lease: datetime, delay_s: float) -> None:
    """Release leased deliveries that were not claimed.

    Args:
        pool: autocommit connections.
        channel: its name.
        outbox_ids: of the deliveries.
        lease: the `due_at` that the lease has set. Rows with another one are left alone.
        delay_s: seconds until they are due again.
    """
    params = {"channel": channel, "ids": list(outbox_ids), "lease": lease, "delay_s": delay_s}
    pool.execute(RELEASE_LEASE, params)


# Answered from the partial indexes, however many deliveries have been sent. An outbox row that is
# not fanned out yet waits on every configured channel.
BACKLOGS = f"""
SELECT channel, sum(waiting)::bigint AS waiting, sum(deferred)::bigint AS deferred, sum(dead)::bigint AS dead,
       coalesce(extract(epoch FROM now() - min(oldest)), 0)::float8 AS oldest_s
FROM (
    SELECT channel, count(*) AS waiting, count(*) FILTER (WHERE {DeliveryState.DEFERRED}) AS deferred,
           min(created_at) AS oldest, 0 AS dead
    FROM deliveries WHERE {OPEN} GROUP BY channel
    UNION ALL
    SELECT channel, 0, 0, NULL, count(*) FROM deliveries WHERE {DeliveryState.DEAD} GROUP BY channel
    UNION ALL
    SELECT c.channel, fresh.waiting, 0, fresh.oldest, 0
    FROM unnest(%(channels)s::text[]) AS c (channel)
    CROSS JOIN (SELECT count(*) AS waiting, min(created_at) AS oldest FROM outbox WHERE {NOT_FANNED_OUT}) fresh
) parts
GROUP BY channel
"""


@dataclass(frozen=True)
class ChannelBacklog:
    """What one channel has not sent.

    Attributes:
        waiting: notifications that are neither sent nor dead.
        deferred: those of them that are leased, or wait for a retry.
        oldest_s: age of the oldest of them, in seconds.
        dead: dead letters.
    """

    waiting: int
    deferred: int
    oldest_s: float
    dead: int


def channel_backlogs(pool: Pool, channels: Sequence[str]) -> dict[str, ChannelBacklog]:
    """Return the backlog of each channel: those named, and others that still have open or dead deliveries."""
    rows = pool.fetch_all(BACKLOGS, {"channels": list(channels)})
    return {row.pop("channel"): ChannelBacklog(**row) for row in rows}
