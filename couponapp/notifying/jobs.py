"""The RQ job. It carries ids only and reads the rest, so a job that is old does no harm."""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime

import pybreaker

from couponapp import metrics
from couponapp.errors import ChannelFailed
from couponapp.guards.circuit_breaker import CircuitBreaker, Refused, Rules, StateLog
from couponapp.notifying import deliveries, retry_policy
from couponapp.notifying.channels import Channel
from couponapp.notifying.deliveries import ClaimedDelivery, Failure
from couponapp.notifying.throttle import Throttle
from couponapp.signals import StopSignal
from couponapp.storage.pool import Pool

log = logging.getLogger(__name__)

# A job gives back what it has not begun by then, so that other events' messages get their turn.
JOB_BUDGET_S = 5.0
# RQ's own bound, for what none of ours ends.
JOB_TIMEOUT_S = 120
# A job claims so many at a time: what a process has claimed when it dies is suspected of it.
CLAIM_BATCH = 50
# What was accepted is noted this often: what a crash in between repeats stays little.
NOTE_EVERY_S = 0.2
# While a channel is not to be asked, its worker rests so long at each job: the messages behind
# would be given back just the same, and each time costs PostgreSQL two writes a message.
REST_S = 5.0
POLL_S = 0.1
# A channel is asked less often than PostgreSQL is, and more slowly: a smaller window.
CHANNEL_RULES = Rules(window=50, min_calls=20, failure_rate=50.0, open_s=5.0, half_open_calls=3, permit_s=120.0)


def queue_name(channel: str) -> str:
    """The RQ queue of a channel."""
    return f"notifications-{channel}"


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How a channel is used.

    Attributes:
        tries: the most tries for one message.
        timeout_s: the most that one send may take, in seconds.
        concurrency: how many messages are under way at once.
    """

    tries: int = 20
    timeout_s: float = 10.0
    concurrency: int = 4


def is_channel_failure(error: BaseException) -> bool:
    """The error is the channel's trouble; not the message's, and no wish to be left alone."""
    return isinstance(error, ChannelFailed) and not error.permanent and error.retry_after_s is None


class StateGauge(pybreaker.CircuitBreakerListener):
    """Shows the state of a channel's circuit as a metric."""

    def state_change(
        self,
        cb: pybreaker.CircuitBreaker,
        old_state: pybreaker.CircuitBreakerState | None,
        new_state: pybreaker.CircuitBreakerState,
    ) -> None:
        """Set it."""
        for state in (pybreaker.STATE_CLOSED, pybreaker.STATE_HALF_OPEN, pybreaker.STATE_OPEN):
            metrics.BREAKER_STATE.labels(cb.name, state).set(new_state.name == state)


class ChannelSender:
    """Sends on one channel: what a job needs of the process that runs it."""

    def __init__(
        self,
        pool: Pool,
        channel: Channel,
        *,
        policy: Policy | None = None,
        pace: Throttle | None = None,
        rules: Rules = CHANNEL_RULES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep what it works with.

        Args:
            pool: autocommit connections.
            channel: accepts the messages, from several threads.
            policy: how the channel is used.
            pace: the channel's rate; none when left out.
            rules: when its circuit breaker opens.
            clock: monotonic, in seconds.
        """
        self.pool = pool
        self.channel = channel
        self.policy = policy or Policy()
        self.pace = pace
        self.clock = clock
        self.stop = StopSignal()
        self.breaker = CircuitBreaker(
            f"notify-{channel.name}",
            is_failure=is_channel_failure,
            rules=rules,
            listeners=[StateLog(), StateGauge()],
        )
        self.lanes = ThreadPoolExecutor(self.policy.concurrency, thread_name_prefix=f"send-{channel.name}")
        self._closing = threading.Lock()
        self._closed_until_s = 0.0

    def deliver(self, outbox_ids: list[int]) -> None:
        """Send those messages that were not sent before. One that fails does not stop the others.

        A crash after the channel accepted a message and before that is noted repeats the send;
        the channel knows the message by its key and lets it count once.

        Raises:
            couponapp.errors.Unavailable: PostgreSQL does not answer; the lease brings the messages back.
        """
        _Run(self, outbox_ids).to_its_end()
        if (closed_s := self.closed_s()) > 0:
            self.stop.wait(min(REST_S, closed_s))

    def send(self, one: ClaimedDelivery) -> None:
        """Send one message.

        Raises:
            Refused: the channel is left alone.
            ChannelFailed: it has not accepted the message.
        """
        with self.breaker.calling():
            self.channel.send(one.notification)

    def close(self, for_s: float) -> None:
        """Leave the channel alone for so many seconds."""
        with self._closing:
            self._closed_until_s = max(self._closed_until_s, self.clock() + for_s)

    def closed_s(self) -> float:
        """How long the channel is still to be left alone, in seconds."""
        return max(0.0, self._closed_until_s - self.clock())


class _Run:
    """One job's messages on their way: a few threads, the lanes, each take the next one and send it.

    The job's own thread notes what has ended. The lists of what has ended are safe without a lock:
    lanes append at their ends, and the job takes away from their beginnings.
    """

    def __init__(self, delivery: ChannelSender, outbox_ids: list[int]) -> None:
        self._delivery = delivery
        self._name = delivery.channel.name
        self._unclaimed = deque(batched(outbox_ids, CLAIM_BATCH))
        self._lease: datetime | None = None
        self._claimed: deque[ClaimedDelivery] = deque()
        self._sent: list[ClaimedDelivery] = []
        self._failed: list[Failure] = []
        self._untried: list[ClaimedDelivery] = []
        self._taking = threading.Lock()
        self._lanes = min(delivery.policy.concurrency, len(outbox_ids))
        self._over = False
        self._end_s = delivery.clock() + JOB_BUDGET_S

    def to_its_end(self) -> None:
        """Send until all are sent or the time is over."""
        # Also where nothing may be sent: what is given back must be known by its lease.
        self._over = not self._claim()
        lanes = [self._delivery.lanes.submit(self._lane) for _ in range(self._lanes)]
        try:
            while wait(lanes, NOTE_EVERY_S).not_done:
                self._note()
        finally:
            self._over = True
            wait(lanes, self._delivery.policy.timeout_s)
            self._untried.extend(self._claimed)
            self._note()
            self._give_back()
        for lane in lanes:
            lane.result()  # raises what it met

    def _lane(self) -> None:
        try:
            while (one := self._next()) is not None:
                try:
                    self._delivery.send(one)
                except Exception as error:
                    self._take(one, error)
                else:
                    self._sent.append(one)
        except BaseException:
            self._over = True  # the other lanes would only meet the same
            raise

    def _next(self) -> ClaimedDelivery | None:
        """The next message to send, when it is its turn. One lane waits, the others behind it."""
        pace, stop = self._delivery.pace, self._delivery.stop
        with self._taking:
            while self._may_send() and (self._claimed or self._claim()):
                if pace is None or (turn_s := pace.take()) <= 0:
                    return self._claimed.popleft()
                stop.wait(min(turn_s, POLL_S))
        return None

    def _may_send(self) -> bool:
        """There is time, and the channel is to be asked."""
        one = self._delivery
        return not self._over and not one.stop.is_set() and one.clock() < self._end_s and not one.closed_s()

    def _claim(self) -> bool:
        """Claim the next few; false where none may be sent."""
        one = self._delivery
        while self._unclaimed and not self._claimed:
            claims = deliveries.claim(one.pool, self._name, self._unclaimed.popleft())
            self._lease = self._lease or (claims[0].due_at if claims else None)
            # Nothing is begun that might end after its lease, when it is somebody else's to send.
            lease_s = min((claim.left_s for claim in claims), default=math.inf) - one.policy.timeout_s
            self._end_s = min(self._end_s, one.clock() + lease_s)
            for claim in claims:
                if buried := retry_policy.poisoned(claim, self._name):
                    self._failed.append(buried)
                else:
                    self._claimed.append(claim)
        return bool(self._claimed) and self._may_send()

    def _take(self, one: ClaimedDelivery, error: Exception) -> None:
        if isinstance(error, Refused):
            self._delivery.close(self._delivery.breaker.rules.open_s)
            self._untried.append(one)
            return
        # What is no ChannelFailed is a mistake in a channel: tried again all the same, and kept.
        failed = error if isinstance(error, ChannelFailed) else ChannelFailed(repr(error))
        if failed.retry_after_s is not None:
            self._delivery.close(min(failed.retry_after_s, retry_policy.MAX_DELAY_S))
        self._failed.append(retry_policy.after_failure(one, failed, self._name, tries=self._delivery.policy.tries))

    def _note(self) -> None:
        pool, name = self._delivery.pool, self._name
        if sent := self._sent[:]:
            took = deliveries.mark_sent(pool, name, [one.notification.outbox_id for one in sent])
            del self._sent[: len(sent)]
            metrics.NOTIFICATIONS_SENT.labels(name).inc(len(took))
            seconds = metrics.NOTIFICATION_SECONDS.labels(name)
            for took_s in took:
                seconds.observe(took_s)
            for one in sent:
                log.info(
                    "notified: issuance %d of coupon %d, %s",
                    one.notification.issuance_id,
                    one.notification.coupon_id,
                    name,
                )
        if failed := self._failed[:]:
            deliveries.reschedule(pool, name, failed)
            del self._failed[: len(failed)]
            dead = sum(one.delay_s is None for one in failed)
            metrics.NOTIFICATIONS_DEAD.labels(name).inc(dead)
            metrics.NOTIFICATIONS_RETRIED.labels(name).inc(len(failed) - dead)

    def _give_back(self) -> None:
        """What was not tried is due again: those that were claimed have lost no try."""
        pool, name = self._delivery.pool, self._name
        delay_s = self._delivery.closed_s() * random.uniform(1.0, 1.2)
        if self._untried:
            deliveries.release(pool, name, [one.notification.outbox_id for one in self._untried], delay_s)
        if self._unclaimed and self._lease:
            ids = [outbox_id for part in self._unclaimed for outbox_id in part]
            deliveries.release_lease(pool, name, ids, self._lease, delay_s)


def batched(ids: list[int], size: int) -> Iterator[list[int]]:
    """Runs of at most `size` ids, in order."""
    return (ids[start : start + size] for start in range(0, len(ids), size))


_deliveries: dict[str, ChannelSender] = {}


def configure(delivery: ChannelSender) -> None:
    """Tell the jobs of this process what to work with. RQ can pass them ids only."""
    _deliveries[delivery.channel.name] = delivery


def deliver(channel: str, outbox_ids: list[int]) -> None:
    """Deliver a few messages: what RQ calls."""
    _deliveries[channel].deliver(outbox_ids)
