"""The RQ job that sends leased deliveries. It carries ids only and reads the rest, so a stale job is harmless."""

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

# A job releases what it has not started by then, so that other events' notifications get their turn.
JOB_BUDGET_S = 5.0
# RQ's own time-out, for hangs that no other bound ends.
JOB_TIMEOUT_S = 120
# Deliveries claimed at a time: if the process dies, all that it has claimed become crash suspects.
CLAIM_BATCH = 50
# How often results are recorded: a crash repeats what was accepted since.
RECORD_EVERY_S = 0.2
# The longest that a job waits for a paused channel. The jobs behind it would only release their
# deliveries, at two writes to PostgreSQL for each.
MAX_PAUSE_S = 5.0
POLL_S = 0.1
# A channel gets fewer calls than PostgreSQL, and slower ones: a smaller window.
CHANNEL_RULES = Rules(window=50, min_calls=20, failure_rate=50.0, open_s=5.0, half_open_calls=3, permit_s=120.0)


def queue_name(channel: str) -> str:
    """Return the name of a channel's RQ queue."""
    return f"notifications-{channel}"


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Bounds on the use of a channel.

    Attributes:
        tries: maximum number of tries for one delivery.
        timeout_s: maximum duration of one send, in seconds.
        concurrency: maximum number of sends at the same time.
    """

    tries: int = 20
    timeout_s: float = 10.0
    concurrency: int = 4


def is_channel_failure(error: BaseException) -> bool:
    """Return whether an error counts against the channel: not against one notification, and not a `Retry-After`."""
    return isinstance(error, ChannelFailed) and not error.permanent and error.retry_after_s is None


class StateGauge(pybreaker.CircuitBreakerListener):
    """A listener that exports the state of a channel's circuit breaker as a metric."""

    def state_change(
        self,
        cb: pybreaker.CircuitBreaker,
        old_state: pybreaker.CircuitBreakerState | None,
        new_state: pybreaker.CircuitBreakerState,
    ) -> None:
        """Set the gauge of each state."""
        for state in (pybreaker.STATE_CLOSED, pybreaker.STATE_HALF_OPEN, pybreaker.STATE_OPEN):
            metrics.BREAKER_STATE.labels(cb.name, state).set(new_state.name == state)


class ChannelSender:
    """Sends the deliveries of one channel in this process, within its bounds."""

    def __init__(
        self,
        pool: Pool,
        channel: Channel,
        *,
        policy: Policy | None = None,
        throttle: Throttle | None = None,
        rules: Rules = CHANNEL_RULES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start nothing yet.

        Args:
            pool: autocommit connections.
            channel: called from several threads at the same time.
            policy: bounds on the use of the channel.
            throttle: the channel's rate; unlimited if left out.
            rules: of the channel's circuit breaker.
            clock: monotonic, in seconds.
        """
        self.pool = pool
        self.channel = channel
        self.policy = policy or Policy()
        self.throttle = throttle
        self.clock = clock
        self.stop = StopSignal()
        self.breaker = CircuitBreaker(
            f"notify-{channel.name}",
            is_failure=is_channel_failure,
            rules=rules,
            listeners=[StateLog(), StateGauge()],
        )
        self.executor = ThreadPoolExecutor(self.policy.concurrency, thread_name_prefix=f"send-{channel.name}")
        self._pausing = threading.Lock()
        self._paused_until_s = 0.0

    def deliver(self, outbox_ids: list[int]) -> None:
        """Send the deliveries that are still open. A failure of one does not stop the others.

        A crash after the channel has accepted a notification, and before that is recorded, repeats
        the send; the channel recognises the notification by its key.

        Raises:
            couponapp.errors.Unavailable: PostgreSQL does not answer; the deliveries are due again when
                their lease expires.
        """
        _Job(self, outbox_ids).run()
        if (paused_s := self.paused_s()) > 0:
            self.stop.wait(min(MAX_PAUSE_S, paused_s))

    def send(self, one: ClaimedDelivery) -> None:
        """Send one notification.

        Raises:
            Refused: the circuit breaker is open.
            ChannelFailed: the channel has not accepted it.
        """
        with self.breaker.calling():
            self.channel.send(one.notification)

    def pause(self, for_s: float) -> None:
        """Send nothing on the channel for this many seconds."""
        with self._pausing:
            self._paused_until_s = max(self._paused_until_s, self.clock() + for_s)

    def paused_s(self) -> float:
        """Return for how many more seconds the channel is paused."""
        return max(0.0, self._paused_until_s - self.clock())


class _Job:
    """One job under way: a few threads send, each taking the next delivery; the job's own thread records results.

    The lists of results need no lock: the sending threads append, and only the job's thread removes.
    """

    def __init__(self, sender: ChannelSender, outbox_ids: list[int]) -> None:
        self._sender = sender
        self._channel = sender.channel.name
        self._unclaimed = deque(batched(outbox_ids, CLAIM_BATCH))
        self._lease: datetime | None = None
        self._claimed: deque[ClaimedDelivery] = deque()
        self._sent: list[ClaimedDelivery] = []
        self._failed: list[Failure] = []
        self._untried: list[ClaimedDelivery] = []
        self._taking = threading.Lock()
        self._threads = min(sender.policy.concurrency, len(outbox_ids))
        self._over = False
        self._end_s = sender.clock() + JOB_BUDGET_S

    def run(self) -> None:
        """Send until all is sent or the time is over."""
        # The first claim is made even if nothing may be sent: releasing the rest needs the lease that it reads.
        self._over = not self._claim()
        sending = [self._sender.executor.submit(self._send_all) for _ in range(self._threads)]
        try:
            while wait(sending, RECORD_EVERY_S).not_done:
                self._record()
        finally:
            self._over = True
            wait(sending, self._sender.policy.timeout_s)
            self._untried.extend(self._claimed)
            self._record()
            self._release()
        for future in sending:
            future.result()  # raises the thread's error

    def _send_all(self) -> None:
        try:
            while (one := self._next()) is not None:
                try:
                    self._sender.send(one)
                except Exception as error:
                    self._handle(one, error)
                else:
                    self._sent.append(one)
        except BaseException:
            self._over = True  # the other threads would meet the same error
            raise

    def _next(self) -> ClaimedDelivery | None:
        """Wait for the throttle and return the next delivery; None at the end. One thread waits, the others queue."""
        throttle = self._sender.throttle
        with self._taking:
            while self._may_send() and (self._claimed or self._claim()):
                if throttle is None or (wait_s := throttle.take()) <= 0:
                    return self._claimed.popleft()
                self._sender.stop.wait(min(wait_s, POLL_S))
        return None

    def _may_send(self) -> bool:
        sender = self._sender
        return not self._over and not sender.stop.is_set() and sender.clock() < self._end_s and not sender.paused_s()

    def _claim(self) -> bool:
        """Claim the next batch; return whether one of its deliveries may be sent."""
        sender = self._sender
        while self._unclaimed and not self._claimed:
            batch = deliveries.claim(sender.pool, self._channel, self._unclaimed.popleft())
            self._lease = self._lease or (batch[0].due_at if batch else None)
            # Start no send that could outlast the lease: by then another job may send the same delivery.
            left_s = min((one.left_s for one in batch), default=math.inf) - sender.policy.timeout_s
            self._end_s = min(self._end_s, sender.clock() + left_s)
            for one in batch:
                if poisoned := retry_policy.poisoned(one, self._channel):
                    self._failed.append(poisoned)
                else:
                    self._claimed.append(one)
        return bool(self._claimed) and self._may_send()

    def _handle(self, one: ClaimedDelivery, error: Exception) -> None:
        sender = self._sender
        if isinstance(error, Refused):
            sender.pause(sender.breaker.rules.open_s)
            self._untried.append(one)
            return
        # Any other error is a bug in a channel: it is recorded, and the delivery is tried again.
        failed = error if isinstance(error, ChannelFailed) else ChannelFailed(repr(error))
        if failed.retry_after_s is not None:
            sender.pause(min(failed.retry_after_s, retry_policy.MAX_DELAY_S))
        self._failed.append(retry_policy.after_failure(one, failed, self._channel, tries=sender.policy.tries))

    def _record(self) -> None:
        pool, channel = self._sender.pool, self._channel
        if sent := self._sent[:]:
            notified = [one.notification for one in sent]
            took = deliveries.mark_sent(pool, channel, [one.outbox_id for one in notified])
            del self._sent[: len(sent)]
            metrics.NOTIFICATIONS_SENT.labels(channel).inc(len(took))
            seconds = metrics.NOTIFICATION_SECONDS.labels(channel)
            for took_s in took:
                seconds.observe(took_s)
            for one in notified:
                log.info("notified: issuance %d of coupon %d, %s", one.issuance_id, one.coupon_id, channel)
        if failed := self._failed[:]:
            deliveries.reschedule(pool, channel, failed)
            del self._failed[: len(failed)]
            dead = sum(one.delay_s is None for one in failed)
            metrics.NOTIFICATIONS_DEAD.labels(channel).inc(dead)
            metrics.NOTIFICATIONS_RETRIED.labels(channel).inc(len(failed) - dead)

    def _release(self) -> None:
        """Release what was not tried, until the channel's pause is over."""
        pool, channel = self._sender.pool, self._channel
        delay_s = self._sender.paused_s() * random.uniform(1.0, 1.2)
        if self._untried:
            deliveries.release_claim(pool, channel, [one.notification.outbox_id for one in self._untried], delay_s)
        if self._unclaimed and self._lease:
            ids = [outbox_id for batch in self._unclaimed for outbox_id in batch]
            deliveries.release_lease(pool, channel, ids, self._lease, delay_s)


def batched(ids: list[int], size: int) -> Iterator[list[int]]:
    """Split ids into lists of at most `size`, in order."""
    return (ids[start : start + size] for start in range(0, len(ids), size))


_senders: dict[str, ChannelSender] = {}


def configure(sender: ChannelSender) -> None:
    """Set the sender that jobs of its channel use in this process: RQ can pass ids only."""
    _senders[sender.channel.name] = sender


def deliver(channel: str, outbox_ids: list[int]) -> None:
    """Send a few deliveries. RQ calls this."""
    _senders[channel].deliver(outbox_ids)
