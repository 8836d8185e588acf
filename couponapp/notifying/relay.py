"""The relay: committed outbox rows → RQ jobs."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator
from typing import Protocol

from redis import Redis, RedisError
from rq import Queue
from rq.queue import EnqueueData

from couponapp.errors import Unavailable
from couponapp.notifying import jobs, outbox
from couponapp.storage.pool import Pool

log = logging.getLogger(__name__)

QUEUE_NAME = "notifications"
BATCH = 100
# RQ spends some twenty round trips on a job: several messages share them. A job is still short
# against its lease, and a failing message does not hold up the others of its job.
MESSAGES_PER_JOB = 25
# Jobs that wait in RQ. What is handed over must be sent before its lease ends, or it would be
# handed over again and again and the queue would grow by itself; the rest waits in the outbox.
MAX_QUEUED_JOBS = 20
# Polling costs one index look-up and, unlike NOTIFY inside the issuing transaction, slows no
# commit (docs/decisions/0005).
POLL_S = 0.2
MAX_BACK_OFF_S = 5.0
PROGRESS_EVERY_S = 10.0
JOB_TIMEOUT_S = 30
FAILED_JOB_TTL_S = 86_400


class Stop(Protocol):
    """Asks a loop to end."""

    def is_set(self) -> bool:
        """It has been asked."""

    def wait(self, timeout_s: float, /) -> bool:
        """Wait until asked, at most so many seconds; tells whether asked."""


class Relay:
    """Hands outbox rows over to RQ. Any number may run at once."""

    def __init__(self, pool: Pool, redis: Redis, *, lease_s: float) -> None:
        """Keep what the relay works with.

        Args:
            pool: autocommit connections.
            redis: RQ's server, with socket timeouts.
            lease_s: after that many seconds an unsent row is handed over again.
        """
        self._pool = pool
        self._queue = Queue(QUEUE_NAME, connection=redis)
        self._lease_s = lease_s

    def run(self, stop: Stop) -> None:
        """Hand over until told to stop; waits out any outage of PostgreSQL or Redis."""
        failures, told, tell_s = 0, -1, time.monotonic()
        while not stop.is_set():
            try:
                handed_over, failures = self.hand_over(), 0
            except (Unavailable, RedisError) as error:
                handed_over, failures = 0, failures + 1
                log.warning("relay: %s; nothing is lost, trying again", error)
            if time.monotonic() >= tell_s:
                told, tell_s = self._tell_progress(told), time.monotonic() + PROGRESS_EVERY_S
            if handed_over < BATCH:
                stop.wait(self._delay_s(failures))

    def hand_over(self) -> int:
        """Lease one batch and enqueue its jobs in one round trip; returns how many messages.

        Rows whose jobs could not be enqueued are free again at once, because the lease is
        rolled back. Enqueued but not committed means enqueued twice, which the job bears.

        Raises:
            couponapp.errors.Unavailable: PostgreSQL does not answer.
            redis.RedisError: Redis does not answer.
        """
        if self._queue.count >= MAX_QUEUED_JOBS:
            return 0
        with self._pool.connection() as connection, connection.transaction():
            ids = outbox.lease(connection, limit=BATCH, lease_s=self._lease_s)
            if ids:
                self._queue.enqueue_many([_job(part) for part in batched(ids, MESSAGES_PER_JOB)])
        return len(ids)

    @staticmethod
    def _delay_s(failures: int) -> float:
        if not failures:
            return POLL_S
        return random.uniform(0.5, 1.0) * min(MAX_BACK_OFF_S, POLL_S * 2.0**failures)

    def _tell_progress(self, told: int) -> int:
        try:
            waiting = outbox.waiting(self._pool)
        except Unavailable:
            return told
        if waiting != told:
            log.info("notifications: %s", f"{waiting} waiting" if waiting else "every issuance is notified")
        return waiting


def batched(ids: list[int], size: int) -> Iterator[list[int]]:
    """Runs of at most `size` ids, in order."""
    return (ids[start : start + size] for start in range(0, len(ids), size))


def _job(outbox_ids: list[int]) -> EnqueueData:
    return Queue.prepare_data(
        jobs.deliver, (outbox_ids,), timeout=JOB_TIMEOUT_S, result_ttl=0, failure_ttl=FAILED_JOB_TTL_S
    )
