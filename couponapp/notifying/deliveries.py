"""The deliveries table: each message on each channel, from «due» to «sent» or «dead»."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from couponapp.notifying.outbox import Notification
from couponapp.storage.pool import Connection, Pool, Row

_OPEN = "sent_at IS NULL AND dead_at IS NULL"

# Each coupon that has something due gets the same share, oldest first, so an event of a hundred
# thousand does not starve another. The recursion steps from coupon to coupon along the partial
# index: one look-up each, however many messages wait. Rows that another relay holds are skipped.
# A lease that ran out makes a row due again, so whatever RQ or a dead process lost comes back.
LEASE = f"""
WITH RECURSIVE heads AS (
    (SELECT coupon_id, due_at FROM deliveries WHERE channel = %(channel)s AND {_OPEN}
     ORDER BY coupon_id, due_at LIMIT 1)
    UNION ALL
    SELECT following.coupon_id, following.due_at
    FROM heads CROSS JOIN LATERAL (
        SELECT coupon_id, due_at FROM deliveries
        WHERE channel = %(channel)s AND {_OPEN} AND coupon_id > heads.coupon_id
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
        WHERE channel = %(channel)s AND {_OPEN} AND coupon_id = due.coupon_id AND due_at <= now()
        ORDER BY due_at, outbox_id LIMIT due.share
        FOR UPDATE SKIP LOCKED
    ) oldest
)
UPDATE deliveries d SET due_at = now() + make_interval(secs => %(lease_s)s)
FROM picked WHERE d.channel = %(channel)s AND d.outbox_id = picked.outbox_id
RETURNING d.outbox_id, d.tries > d.failures AS suspect
"""


@dataclass(frozen=True)
class Leased:
    """Messages to hand over.

    Attributes:
        sound: outbox ids, oldest first.
        suspect: those with which a process has died before; they must not take others along.
    """

    sound: list[int]
    suspect: list[int]

    def __len__(self) -> int:
        return len(self.sound) + len(self.suspect)


def lease(connection: Connection, channel: str, *, limit: int, lease_s: float) -> Leased:
    """Take due messages of one channel for `lease_s` seconds. Part of the caller's transaction.

    Args:
        connection: inside a transaction.
        channel: its name.
        limit: the most messages, shared by the coupons that have some.
        lease_s: when they are due again, in seconds.
    """
    rows = connection.execute(LEASE, {"channel": channel, "limit": limit, "lease_s": lease_s}).fetchall()
    ids = {suspect: sorted(r["outbox_id"] for r in rows if r["suspect"] == suspect) for suspect in (False, True)}
    return Leased(ids[False], ids[True])


@dataclass(frozen=True)
class ClaimedDelivery:
    """One message that this process is about to send.

    Attributes:
        tries: which try this is, from 1.
        failures: how many of the earlier ones came back with an error; the others did not come back.
        due_at: when its lease ends.
        left_s: what is left of the lease, in seconds; below 0 where it has run out.
        given_up: its time is over: if this try fails, there is no other.
    """

    notification: Notification
    tries: int
    failures: int
    due_at: datetime
    left_s: float
    given_up: bool


# Counts the try before it is made, so that one which kills its process is counted too. It does not
# ask for a lease that lasts: the job may be here before the lease is committed, and must wait for it.
CLAIM = f"""
WITH claimed AS (
    UPDATE deliveries SET tries = tries + 1
    WHERE channel = %(channel)s AND outbox_id = ANY(%(ids)s) AND {_OPEN}
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
_OF_CLAIM = ("tries", "failures", "due_at", "left_s", "given_up")


def claim(pool: Pool, channel: str, outbox_ids: Sequence[int]) -> list[ClaimedDelivery]:
    """Begin a try of those messages that are still open, in order."""
    rows = pool.fetch_all(CLAIM, {"channel": channel, "ids": list(outbox_ids)})
    return [
        ClaimedDelivery(
            Notification(**{name: value for name, value in row.items() if name not in _OF_CLAIM}),
            **{name: row[name] for name in _OF_CLAIM},
        )
        for row in rows
    ]


# The outbox rows are locked in order first: two channels that finish the same messages would
# otherwise wait for each other crosswise. The last channel's «sent» is the message's.
MARK_SENT = f"""
WITH locked AS MATERIALIZED (
    SELECT id FROM outbox WHERE id = ANY(%(ids)s) ORDER BY id FOR NO KEY UPDATE
),
done AS (
    UPDATE deliveries d SET sent_at = now(), reason = NULL
    FROM locked WHERE d.outbox_id = locked.id AND d.channel = %(channel)s AND {_OPEN}
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
    """Note that the channel has accepted the messages. Twice is as good as once.

    Returns:
        For each that was not noted before: seconds from its commit until now.
    """
    rows = pool.fetch_all(MARK_SENT, {"channel": channel, "ids": sorted(outbox_ids)})
    return [row["took_s"] for row in rows]


@dataclass(frozen=True)
class Failure:
    """A try that came back with an error.

    Attributes:
        delay_s: until the next one, in seconds; None: there is none, the message is a dead letter.
    """

    outbox_id: int
    reason: str
    delay_s: float | None


RESCHEDULE = f"""
UPDATE deliveries d SET failures = d.failures + 1, reason = f.reason,
    due_at = CASE WHEN f.delay_s IS NULL THEN d.due_at ELSE now() + make_interval(secs => f.delay_s) END,
    dead_at = CASE WHEN f.delay_s IS NULL THEN now() END
FROM unnest(%(ids)s::bigint[], %(reasons)s::text[], %(delays)s::float8[]) AS f (outbox_id, reason, delay_s)
WHERE d.channel = %(channel)s AND d.outbox_id = f.outbox_id AND {_OPEN}
"""


def reschedule(pool: Pool, channel: str, failures: Sequence[Failure]) -> None:
    """Note failures: each message is due again after its delay, or dead."""
    params = {
        "channel": channel,
        "ids": [one.outbox_id for one in failures],
        "reasons": [one.reason for one in failures],
        "delays": [one.delay_s for one in failures],
    }
    pool.execute(RESCHEDULE, params)


RELEASE = f"""
UPDATE deliveries SET tries = tries - 1, due_at = now() + make_interval(secs => %(delay_s)s)
WHERE channel = %(channel)s AND outbox_id = ANY(%(ids)s) AND {_OPEN}
"""


def release(pool: Pool, channel: str, outbox_ids: Sequence[int], delay_s: float) -> None:
    """Give claimed messages back that were not tried after all.

    Args:
        pool: autocommit connections.
        channel: its name.
        outbox_ids: the messages.
        delay_s: when they are due again, in seconds.
    """
    pool.execute(RELEASE, {"channel": channel, "ids": list(outbox_ids), "delay_s": delay_s})


# Only while it is this lease that they wait for: when it has run out, they may be somebody else's.
RELEASE_LEASE = f"""
UPDATE deliveries SET due_at = now() + make_interval(secs => %(delay_s)s)
WHERE channel = %(channel)s AND outbox_id = ANY(%(ids)s) AND due_at = %(lease)s AND {_OPEN}
"""


def release_lease(pool: Pool, channel: str, outbox_ids: Sequence[int], lease: datetime, delay_s: float) -> int:
    """Give leased messages back that nobody has claimed.

    Args:
        pool: autocommit connections.
        channel: its name.
        outbox_ids: the messages.
        lease: when it ends, as the row has it. What has another `due_at` by now is left alone.
        delay_s: when they are due again, in seconds.

    Returns:
        How many that were.
    """
    params = {"channel": channel, "ids": list(outbox_ids), "lease": lease, "delay_s": delay_s}
    return pool.execute(RELEASE_LEASE, params)


# The partial indexes answer this, however many have been sent.
BACKLOGS = f"""
SELECT channel, count(*) AS waiting, extract(epoch FROM now() - min(created_at))::float8 AS oldest_s, 0 AS dead
FROM deliveries WHERE {_OPEN} GROUP BY channel
UNION ALL
SELECT channel, 0, 0, count(*) FROM deliveries WHERE dead_at IS NOT NULL GROUP BY channel
UNION ALL
SELECT NULL, count(*), coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8, 0
FROM outbox WHERE planned_at IS NULL
"""


@dataclass(frozen=True)
class ChannelBacklog:
    """How one channel stands.

    Attributes:
        waiting: messages that are not sent yet and not dead.
        oldest_s: age of the oldest of them, in seconds.
        dead: dead letters.
    """

    waiting: int = 0
    oldest_s: float = 0.0
    dead: int = 0


def channel_backlogs(pool: Pool, channels: Sequence[str]) -> dict[str, ChannelBacklog]:
    """How every channel stands: those named, and those that are no longer configured but have messages.

    An outbox row that the relay has not seen yet waits on every channel that is named.
    """
    rows = pool.fetch_all(BACKLOGS)
    fresh = next(row for row in rows if row["channel"] is None)
    found: dict[str, ChannelBacklog] = {name: ChannelBacklog() for name in channels}
    for row in rows:
        if row["channel"] is not None:
            found[row["channel"]] = _sum(found.get(row["channel"], ChannelBacklog()), row)
    return {name: _sum(one, fresh) if name in channels else one for name, one in found.items()}


def _sum(one: ChannelBacklog, row: Row) -> ChannelBacklog:
    return ChannelBacklog(one.waiting + row["waiting"], max(one.oldest_s, row["oldest_s"]), one.dead + row["dead"])
