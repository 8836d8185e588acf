"""RQ's worker as the channels need it."""

from __future__ import annotations

from redis import Redis
from rq.worker import SimpleWorker

from couponapp.notifying.archive import UPKEEP_QUEUE
from couponapp.notifying.jobs import ChannelSender, queue_name

# An idle worker wakes, and what a dead one left counts as abandoned, after so long.
WORKER_TTL_S = 30
MAINTENANCE_EVERY_S = 60
DEQUEUE_TIMEOUT_S = 2
SILENT_TIMEOUT_S = 4


class ChannelWorker(SimpleWorker):
    """Runs the jobs of one channel in this process, and between them the upkeep.

    No fork per job: a send is short, and what kills the process harms no other channel. It waits for
    a job in short turns: RQ reads every answer with the time-out of the longest wait, and meets
    several connections in turn when a master has frozen. With two queues RQ takes a job without its
    intermediate queue, from which one that cannot be read would come back to every new worker.
    """

    # Between two tries while Redis is away; RQ's own grows to a minute.
    max_connection_wait_time = 2.0

    def __init__(self, delivery: ChannelSender, redis: Redis) -> None:
        """Listen to the channel's queue.

        Args:
            delivery: does the work.
            redis: RQ's server.
        """
        super().__init__(
            [queue_name(delivery.channel.name), UPKEEP_QUEUE],
            connection=redis,
            worker_ttl=WORKER_TTL_S,
            maintenance_interval=MAINTENANCE_EVERY_S,
        )
        self._delivery = delivery

    @property
    def dequeue_timeout(self) -> int:
        """Seconds that one turn lasts."""
        return DEQUEUE_TIMEOUT_S

    @property
    def connection_timeout(self) -> int:
        """Seconds after which a Redis that does not answer is given up; longer than a turn."""
        return SILENT_TIMEOUT_S

    def handle_warm_shutdown_request(self) -> None:
        """Asked to end: the job under way gives back what it has not begun."""
        self._delivery.stop.set()
        super().handle_warm_shutdown_request()  # type: ignore[no-untyped-call]  # rq has types for a part of itself
