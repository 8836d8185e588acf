"""RQ's worker, adapted to the channels."""

from __future__ import annotations

from redis import Redis
from rq.worker import SimpleWorker

from couponapp.notifying.archive import UPKEEP_QUEUE
from couponapp.notifying.jobs import ChannelSender, queue_name

# An idle worker renews its registration, and a dead worker's jobs count as abandoned, after this time.
WORKER_TTL_S = 30
MAINTENANCE_EVERY_S = 60
DEQUEUE_TIMEOUT_S = 2
REDIS_TIMEOUT_S = 4


class ChannelWorker(SimpleWorker):
    """Runs the jobs of one channel in this process, and upkeep jobs between them.

    No fork per job: a send is short, and a crash affects no other channel. It waits for jobs in short
    turns: RQ applies the time-out of its longest wait to every read, and may try several connections
    in turn after a Redis master has frozen. With two queues RQ takes a job without its intermediate
    queue, from which an unreadable job would come back to every new worker.
    """

    # Between two tries while Redis is away; RQ's own delay grows to a minute.
    max_connection_wait_time = 2.0

    def __init__(self, sender: ChannelSender, redis: Redis) -> None:
        """Listen to the channel's queue and to the upkeep queue.

        Args:
            sender: of the channel; `jobs.configure` has registered it.
            redis: RQ's server.
        """
        super().__init__(
            [queue_name(sender.channel.name), UPKEEP_QUEUE],
            connection=redis,
            worker_ttl=WORKER_TTL_S,
            maintenance_interval=MAINTENANCE_EVERY_S,
        )
        self._sender = sender

    @property
    def dequeue_timeout(self) -> int:
        """Seconds for which one turn waits."""
        return DEQUEUE_TIMEOUT_S

    @property
    def connection_timeout(self) -> int:
        """Seconds until a silent Redis counts as lost; longer than a turn."""
        return REDIS_TIMEOUT_S

    def handle_warm_shutdown_request(self) -> None:
        """Stop: the job under way releases what it has not started."""
        self._sender.stop.set()
        super().handle_warm_shutdown_request()  # type: ignore[no-untyped-call]  # rq is typed in part
