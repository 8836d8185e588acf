"""The relay: committed outbox rows → deliveries → RQ jobs, a queue for each channel."""

from __future__ import annotations

import logging
import random
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from redis import Redis, RedisError
from rq import Queue
from rq.exceptions import DuplicateJobError
from rq.queue import EnqueueData

from couponapp import metrics
from couponapp.errors import Unavailable
from couponapp.notifying import archive, deliveries, jobs, outbox
from couponapp.notifying.deliveries import Leased
from couponapp.notifying.throttle import Throttle
from couponapp.storage.pool import Connection, Pool

log = logging.getLogger(__name__)

PLAN_BATCH = 500
# RQ spends some twenty round trips on a job, as much computing time as on fifty messages: many
# messages share them. A job is still short: it gives back what it has not begun after a few seconds.
MESSAGES_PER_JOB = 200
# Jobs that wait in a channel's queue. What is handed over must be sent before its lease ends, or
# it would be handed over again and again; and what has just become due, such as another event's
# first message, waits behind these only. The rest waits in PostgreSQL.
MAX_QUEUED_JOBS = 2
# Polling costs one index look-up and, unlike NOTIFY inside the issuing transaction, slows no
# commit (docs/decisions/0005).
POLL_S = 0.2
MAX_BACK_OFF_S = 5.0
PROGRESS_EVERY_S = 10.0
FAILED_JOB_TTL_S = 86_400
ARCHIVE_JOB = "notifications-archive"


class Stop(Protocol):
    """Asks a loop to end."""

    def is_set(self) -> bool:
        """It has been asked."""

    def wait(self, timeout_s: float, /) -> bool:
        """Wait until asked, at most so many seconds; tells whether asked."""


class Relay:
    """Hands messages over to RQ. Any number may run at once."""

    def __init__(
        self,
        pool: Pool,
        redis: Redis,
        *,
        lease_s: float,
        channels: tuple[str, ...] = ("file",),
        rates: Mapping[str, Throttle] | None = None,
        give_up_s: float = 86_400.0,
        keep_days: int = 30,
    ) -> None:
        """Keep what the relay works with.

        Args:
            pool: autocommit connections.
            redis: RQ's server, with socket timeouts.
            lease_s: after that many seconds an unsent message is handed over again.
            channels: names of the channels that each message goes to.
            rates: of those that have one: a job holds no more than it can send in its time.
            give_up_s: after that many seconds a message that fails is not tried again.
            keep_days: after that many days what was sent goes into the archive.
        """
        self._pool = pool
        self._redis = redis
        self._queues = {name: Queue(jobs.queue_name(name), connection=redis) for name in channels}
        self._per_job = dict.fromkeys(channels, MESSAGES_PER_JOB)
        for name, pace in (rates or {}).items():
            self._per_job[name] = min(MESSAGES_PER_JOB, pace.turns(jobs.JOB_BUDGET_S))
        self._lease_s = lease_s
        self._give_up_s = give_up_s
        self._keep_days = keep_days
        self._wait_s = POLL_S

    def run(self, stop: Stop) -> None:
        """Hand over until told to stop; waits out any outage of PostgreSQL or Redis."""
        failures, told, tell_s, archive_s = 0, -1, time.monotonic(), time.monotonic()
        while not stop.is_set():
            try:
                self.hand_over()
                failures = 0
                if time.monotonic() >= archive_s:
                    self.schedule_archive()
                    archive_s = time.monotonic() + archive.ARCHIVE_EVERY_S
            except (Unavailable, RedisError) as error:
                failures += 1
                log.warning("relay: %s; nothing is lost, trying again", error)
            if time.monotonic() >= tell_s:
                told, tell_s = self._tell_progress(told), time.monotonic() + PROGRESS_EVERY_S
            stop.wait(self._back_off_s(failures) if failures else self._wait_s)

    def hand_over(self) -> int:
        """Lease what there is room for and enqueue its jobs in one round trip.

        Messages whose jobs could not be enqueued are due again at once, because the lease is
        rolled back. Enqueued but not committed means enqueued twice, which the job bears.

        Returns:
            How many messages, on all channels together.

        Raises:
            couponapp.errors.Unavailable: PostgreSQL does not answer.
            redis.RedisError: Redis does not answer.
        """
        planned = outbox.plan(self._pool, tuple(self._queues), limit=PLAN_BATCH, give_up_s=self._give_up_s)
        room = self._room()
        with self._pool.connection() as connection, connection.transaction():
            leased = {name: self._lease(connection, name, n) for name, n in room.items() if n}
            if any(leased.values()):
                self._enqueue(leased)
        filled = [name for name, n in room.items() if n and len(leased[name]) >= n]
        self._wait_s = 0.0 if filled or planned >= PLAN_BATCH else POLL_S  # there may be more at once
        return sum(map(len, leased.values()))

    def _lease(self, connection: Connection, channel: str, limit: int) -> Leased:
        """Fair shares first; what some did not need goes to the others."""
        first = deliveries.lease(connection, channel, limit=limit, lease_s=self._lease_s)
        if not 0 < len(first) < limit:
            return first
        more = deliveries.lease(connection, channel, limit=limit - len(first), lease_s=self._lease_s)
        return Leased(sorted(first.sound + more.sound), first.suspect + more.suspect)

    def schedule_archive(self) -> bool:
        """Enqueue a round of archiving, unless one waits or runs: any number of relays make one.

        RQ's own scheduler would be one more process; its cron enqueues once per scheduler.

        Returns:
            It was enqueued.

        Raises:
            redis.RedisError: Redis does not answer.
        """
        try:
            Queue(archive.UPKEEP_QUEUE, connection=self._redis).enqueue(
                archive.run,
                self._keep_days,
                job_id=ARCHIVE_JOB,
                unique=True,
                ttl=int(archive.ARCHIVE_EVERY_S),
                job_timeout=jobs.JOB_TIMEOUT_S,
                result_ttl=0,
                failure_ttl=int(archive.ARCHIVE_EVERY_S),
            )
        except DuplicateJobError:
            return False
        return True

    def _room(self) -> dict[str, int]:
        """How many messages each channel's queue can still take."""
        with self._redis.pipeline(transaction=False) as pipeline:
            for queue in self._queues.values():
                pipeline.llen(queue.key)
            lengths: list[Any] = pipeline.execute()
        jobs_left = (max(0, MAX_QUEUED_JOBS - int(length)) for length in lengths)
        return {name: n * self._per_job[name] for name, n in zip(self._queues, jobs_left, strict=True)}

    def _enqueue(self, leased: Mapping[str, Leased]) -> None:
        with self._redis.pipeline() as pipeline:
            for name, messages in leased.items():
                queued = [self._job(name, ids) for ids in _parts(messages, self._per_job[name])]
                self._queues[name].enqueue_many(queued, pipeline=pipeline)
            pipeline.execute()

    def _job(self, channel: str, outbox_ids: list[int]) -> EnqueueData:
        """A job that RQ drops by itself when its lease has ended before a worker takes it."""
        # Never the same id twice: what a dead worker left of a job must not stand in the way of
        # the next lease's.
        job_id = f"{channel}-{outbox_ids[0]}-{uuid.uuid4().hex}"
        return Queue.prepare_data(
            jobs.deliver,
            (channel, outbox_ids),
            job_id=job_id,
            ttl=max(1, int(self._lease_s)),
            timeout=jobs.JOB_TIMEOUT_S,
            result_ttl=0,
            failure_ttl=FAILED_JOB_TTL_S,
        )

    @staticmethod
    def _back_off_s(failures: int) -> float:
        return random.uniform(0.5, 1.0) * min(MAX_BACK_OFF_S, POLL_S * 2.0**failures)

    def _tell_progress(self, told: int) -> int:
        try:
            channel_backlogs = deliveries.channel_backlogs(self._pool, tuple(self._queues))
        except Unavailable:
            return told
        for name, one in channel_backlogs.items():
            metrics.NOTIFICATIONS_WAITING.labels(name).set(one.waiting)
            metrics.NOTIFICATIONS_OLDEST_SECONDS.labels(name).set(one.oldest_s)
            metrics.NOTIFICATIONS_DEAD_LETTERS.labels(name).set(one.dead)
        waiting, dead = (
            sum(one.waiting for one in channel_backlogs.values()),
            sum(one.dead for one in channel_backlogs.values()),
        )
        if waiting != told:
            log.info("notifications: %s", f"{waiting} waiting" if waiting else "every issuance is notified")
            if dead:
                log.warning("notifications: %d dead letters; see flask notifications dead", dead)
        return waiting


def _parts(messages: Leased, per_job: int) -> Iterator[list[int]]:
    """A job for each few sound messages, and one for each suspect one."""
    yield from jobs.batched(messages.sound, per_job)
    yield from jobs.batched(messages.suspect, 1)
