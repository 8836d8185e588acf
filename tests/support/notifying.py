"""Shared by the tests of notifications: issuances, a scripted channel, and the rows of `deliveries`."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from redis import Redis
from rq import Queue
from rq.job import Job

from couponapp.errors import ChannelFailed
from couponapp.issuing.statement import issue
from couponapp.notifying import jobs
from couponapp.notifying.outbox import Notification
from couponapp.storage.pool import Pool, Row

# Ends leases and the delays after failures.
MAKE_ALL_DUE = "UPDATE deliveries SET due_at = now() - interval '1 second' WHERE sent_at IS NULL AND dead_at IS NULL"


def issue_to(pool: Pool, coupon_id: int, *users: str) -> list[int]:
    """Issue to each user; return the ids of the issuances."""
    attempts = [issue(pool, coupon_id, user) for user in users]
    return [attempt.issuance.id for attempt in attempts if attempt.issuance]


def run_jobs(sender: jobs.ChannelSender, redis: Redis) -> None:
    """Run all queued jobs of the channel as RQ's worker does, which itself takes a second to stop."""
    jobs.configure(sender)
    queue = Queue(jobs.queue_name(sender.channel.name), connection=redis)
    while queue.count:
        job_id = str(queue.pop_job_id())
        job = Job.fetch(job_id, connection=redis)
        job.perform()
        job.delete()


def delivery_rows(pool: Pool) -> list[Row]:
    """Return all rows of the table, in order."""
    return pool.fetch_all(
        "SELECT d.*, o.issuance_id, extract(epoch FROM d.due_at - now())::float8 AS due_in_s "
        "FROM deliveries d JOIN outbox o ON o.id = d.outbox_id ORDER BY d.outbox_id, d.channel"
    )


def count(pool: Pool, condition: Any) -> int:
    """Count the deliveries that meet a condition."""
    row = pool.fetch_one(f"SELECT count(*) AS n FROM deliveries WHERE {condition}")
    assert row is not None
    return int(row["n"])


class ScriptedChannel:
    """A channel that fails as scripted, by user, and counts what it is sent."""

    def __init__(self, name: str = "file") -> None:
        self.name = name
        self.fails: dict[str, list[BaseException]] = defaultdict(list)
        self.sent: Counter[str] = Counter()
        self.calls: list[str] = []
        self.before: Callable[[], None] = lambda: None
        self._lock = threading.Lock()

    def fail(self, user: str, *errors: BaseException) -> None:
        """Let the next sends to a user raise these errors."""
        self.fails[user].extend(errors)

    def send(self, notification: Notification) -> None:
        self.before()
        with self._lock:
            self.calls.append(notification.user_id)
            if self.fails[notification.user_id]:
                raise self.fails[notification.user_id].pop(0)
            self.sent[notification.user_id] += 1


def temporary(count: int = 1) -> Sequence[ChannelFailed]:
    """Return errors after which a retry makes sense."""
    return [ChannelFailed("not now") for _ in range(count)]
