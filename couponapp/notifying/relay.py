"""The relay: committed outbox rows → deliveries → RQ jobs, one queue per channel."""

from __future__ import annotations

import logging
import random
import time
import uuid
from collections.abc import Mapping
from itertools import chain
from typing import Any

from redis import Redis, RedisError
from rq import Queue
from rq.exceptions import DuplicateJobError
from rq.queue import EnqueueData

from couponapp import metrics
from couponapp.errors import Unavailable
from couponapp.notifying import archive, deliveries, jobs, outbox
from couponapp.notifying.deliveries import Leased
from couponapp.notifying.throttle import Throttle
from couponapp.signals import StopSignal
from couponapp.storage.pool import Connection, Pool

log = logging.getLogger(__name__)

FAN_OUT_BATCH = 500
# RQ needs some twenty round trips for a job, as much computing time as fifty deliveries: many
# deliveries share them. A job is short all the same: after a few seconds it releases the rest.
DELIVERIES_PER_JOB = 200
# Jobs that wait in a channel's queue. Deliveries must be sent before their lease expires, or they
# would be handed over again and again; and a newly due delivery, such as another event's first,
# waits behind these only. All others wait in PostgreSQL.
MAX_QUEUED_JOBS = 2
# Polling costs one index look-up and, unlike NOTIFY inside the issuing transaction, slows no commit
# (docs/decisions/0005).
POLL_S = 0.2
MAX_BACK_OFF_S = 5.0
PROGRESS_EVERY_S = 10.0
FAILED_JOB_TTL_S = 86_400
ARCHIVE_JOB = "notifications-archive"


class Relay:
    """Hands due deliveries over to RQ. Any number of relays may run at the same time."""

    def __init__(
        self,
        pool: Pool,
        redis: Redis,
        *,
        lease_s: float,
        channels: tuple[str, ...] = ("file",),
        throttles: Mapping[str, Throttle] | None = None,
        give_up_s: float = 86_400.0,
        keep_days: int = 30,
    ) -> None:
        """Start nothing yet.

        Args:
            pool: autocommit connections.
            redis: RQ's server, with socket time-outs.
            lease_s: seconds after which an unsent delivery is handed over again.
            channels: names; each notification goes to all of them.
            throttles: rates by channel: a job takes no more than it can send in its time.
            give_up_s: seconds after which a delivery that fails is not retried.
            keep_days: days after which sent rows are archived.
        """
        self._pool = pool
        self._redis = redis
        self._queues = {name: Queue(jobs.queue_name(name), connection=redis) for name in channels}
        self._per_job = dict.fromkeys(channels, DELIVERIES_PER_JOB)
        for name, throttle in (throttles or {}).items():
            self._per_job[name] = min(DELIVERIES_PER_JOB, throttle.turns(jobs.JOB_BUDGET_S))
        self._lease_s = lease_s
        self._give_up_s = give_up_s
        self._keep_days = keep_days
        self._wait_s = POLL_S

    def run(self, stop: StopSignal) -> None:
        """Hand over until stopped. Outages of PostgreSQL and Redis are waited out."""
        failures, waiting, report_s, archive_s = 0, -1, time.monotonic(), time.monotonic()
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
            if time.monotonic() >= report_s:
                waiting, report_s = self._report_backlog(waiting), time.monotonic() + PROGRESS_EVERY_S
            stop.wait(self._back_off_s(failures) if failures else self._wait_s)

    def hand_over(self) -> int:
        """Lease as many deliveries as the queues have room for, and enqueue their jobs in one round trip.

        If the jobs cannot be enqueued, the lease is rolled back and the deliveries are due at once. If
        the commit fails after they were enqueued, they are enqueued again, which jobs tolerate.

        Returns:
            The number of deliveries, on all channels together.

        Raises:
            couponapp.errors.Unavailable: PostgreSQL does not answer.
            redis.RedisError: Redis does not answer.
        """
        created = outbox.fan_out(self._pool, tuple(self._queues), limit=FAN_OUT_BATCH, give_up_s=self._give_up_s)
        room = self._room()
        with self._pool.connection() as connection, connection.transaction():
            leased = {name: self._lease(connection, name, n) for name, n in room.items() if n}
            if any(leased.values()):
                self._enqueue(leased)
        filled = any(len(one) >= room[name] for name, one in leased.items())
        self._wait_s = 0.0 if filled or created >= FAN_OUT_BATCH else POLL_S  # more may be due already
        return sum(map(len, leased.values()))

    def _lease(self, connection: Connection, channel: str, limit: int) -> Leased:
        """Lease fair shares first; what some coupons do not use goes to the others."""
        first = deliveries.lease(connection, channel, limit=limit, lease_s=self._lease_s)
        if not 0 < len(first) < limit:
            return first
        more = deliveries.lease(connection, channel, limit=limit - len(first), lease_s=self._lease_s)
        return Leased(sorted(first.outbox_ids + more.outbox_ids), sorted(first.crash_suspects + more.crash_suspects))

    def schedule_archive(self) -> bool:
        """Enqueue a round of archiving, unless one is waiting or running: all relays together schedule one.

        RQ's own scheduler would be one more process; its cron enqueues once per scheduler.

        Returns:
            Whether it was enqueued.

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
        """Return how many deliveries each channel's queue can still take."""
        with self._redis.pipeline(transaction=False) as pipeline:
            for queue in self._queues.values():
                pipeline.llen(queue.key)
            lengths: list[Any] = pipeline.execute()
        jobs_left = (max(0, MAX_QUEUED_JOBS - int(length)) for length in lengths)
        return {name: n * self._per_job[name] for name, n in zip(self._queues, jobs_left, strict=True)}

    def _enqueue(self, leased: Mapping[str, Leased]) -> None:
        with self._redis.pipeline() as pipeline:
            for name, one in leased.items():
                parts = chain(jobs.batched(one.outbox_ids, self._per_job[name]), jobs.batched(one.crash_suspects, 1))
                self._queues[name].enqueue_many([self._job(name, ids) for ids in parts], pipeline=pipeline)
            pipeline.execute()

    def _job(self, channel: str, outbox_ids: list[int]) -> EnqueueData:
        """Describe a job that RQ drops if no worker takes it before its lease expires."""
        # A new id for every job: remains of a job whose worker died must not block the next lease's.
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

    def _report_backlog(self, last: int) -> int:
        """Set the metrics, log a change since `last`; return the number of deliveries that wait."""
        try:
            backlogs = deliveries.channel_backlogs(self._pool, tuple(self._queues))
        except Unavailable:
            return last
        for name, one in backlogs.items():
            metrics.NOTIFICATIONS_WAITING.labels(name).set(one.waiting)
            metrics.NOTIFICATIONS_OLDEST_SECONDS.labels(name).set(one.oldest_s)
            metrics.NOTIFICATIONS_DEAD_LETTERS.labels(name).set(one.dead)
        waiting = sum(one.waiting for one in backlogs.values())
        dead = sum(one.dead for one in backlogs.values())
        if waiting != last:
            deferred = sum(one.deferred for one in backlogs.values())
            text = f"{waiting} waiting, {deferred} of them leased or to be retried"
            log.info("notifications: %s", text if waiting else "every issuance is notified")
            if dead:
                log.warning("notifications: %d dead letters; see flask notifications dead", dead)
        return waiting
