"""The RQ job. It carries ids only and reads the rest, so a job that is old does no harm."""

from __future__ import annotations

import logging
import random
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import pybreaker

from couponapp import metrics
from couponapp.errors import ChannelFailed
from couponapp.guards.breaker import CircuitBreaker, Refused, Rules, StateLog
from couponapp.notifying import deliveries
from couponapp.notifying.channels import Channel
from couponapp.notifying.deliveries import Claim, Failure
from couponapp.notifying.pace import Pace
from couponapp.signals import StopSignal
from couponapp.storage.pool import Pool

log = logging.getLogger(__name__)

# A job gives back what it has not begun by then, so that other events' messages get their turn.
JOB_BUDGET_S = 5.0
# RQ's own bound, for what none of ours ends.
JOB_TIMEOUT_S = 120
# What was accepted is noted this often: what a crash in between repeats stays little.
NOTE_EVERY_S = 0.2
FIRST_DELAY_S = 2.0
MAX_DELAY_S = 3_600.0
# So often may a process end in the middle of one message before that message is taken for the cause.
MAX_CRASHES = 5
MAX_REASON = 500
# While a channel is not to be asked, its worker rests so long at each job: the messages behind
# would be given back just the same.
REST_S = 1.0
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


def speaks_against_channel(error: BaseException) -> bool:
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


@dataclass
class _Ended:
    """What has come of a job's messages and is not noted yet."""

    sent: list[Claim] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    untried: list[Claim] = field(default_factory=list)


class Delivery:
    """Sends on one channel: what a job needs of the process that runs it."""

    def __init__(
        self,
        pool: Pool,
        channel: Channel,
        *,
        policy: Policy | None = None,
        pace: Pace | None = None,
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
        self.channel = channel
        self.stop = StopSignal()
        self._pool = pool
        self._policy = policy or Policy()
        self._pace = pace
        self._clock = clock
        self.breaker = CircuitBreaker(
            f"notify-{channel.name}",
            is_failure=speaks_against_channel,
            rules=rules,
            listeners=[StateLog(), StateGauge()],
        )
        self._executor = ThreadPoolExecutor(self._policy.concurrency, thread_name_prefix=f"send-{channel.name}")
        self._closed_until_s = 0.0

    def deliver(self, outbox_ids: list[int]) -> None:
        """Send those messages that were not sent before. One that fails does not stop the others.

        A crash after the channel accepted a message and before that is noted repeats the send;
        the channel knows the message by its key and lets it count once.

        Raises:
            couponapp.errors.Unavailable: PostgreSQL does not answer; the lease brings the messages back.
        """
        claims = deliveries.claim(self._pool, self.channel.name, outbox_ids)
        ended = _Ended()
        todo = deque(one for one in claims if not self._is_poison(one, ended))
        running: dict[Future[None], Claim] = {}
        end_s = self._end_s(claims)
        note_s = self._clock() + NOTE_EVERY_S
        try:
            while running or (todo and self._may_send(end_s)):
                pause_s = self._start(todo, running, end_s)
                if not running:
                    self.stop.wait(pause_s)
                for future in wait(running, pause_s, FIRST_COMPLETED).done:
                    self._take(running.pop(future), future, ended)
                if self._clock() >= note_s:
                    self._note(ended)
                    note_s = self._clock() + NOTE_EVERY_S
        finally:
            ended.untried.extend(todo)
            self._note(ended)
        if (closed_s := self._closed_s()) > 0:
            self.stop.wait(min(REST_S, closed_s))

    def _end_s(self, claims: list[Claim]) -> float:
        """Nothing is begun that might end after its lease, when it is somebody else's to send."""
        lease_s = min((one.left_s for one in claims), default=0.0) - self._policy.timeout_s
        return self._clock() + min(JOB_BUDGET_S, lease_s)

    def _may_send(self, end_s: float) -> bool:
        """There is time, and the channel is to be asked."""
        return not self.stop.is_set() and self._clock() < end_s and not self._closed_s()

    def _start(self, todo: deque[Claim], running: dict[Future[None], Claim], end_s: float) -> float:
        """Begin what may begin; returns how long to wait for what is next, in seconds."""
        while todo and len(running) < self._policy.concurrency and self._may_send(end_s):
            if self._pace is not None and (turn_s := self._pace.take()) > 0:
                return min(turn_s, POLL_S)
            one = todo.popleft()
            running[self._executor.submit(self._send, one)] = one
        return POLL_S

    def _send(self, one: Claim) -> None:
        with self.breaker.calling():
            self.channel.send(one.notice)

    def _take(self, one: Claim, future: Future[None], ended: _Ended) -> None:
        error = future.exception()
        if error is None:
            ended.sent.append(one)
        elif isinstance(error, Refused):
            self._close(self.breaker.rules.open_s)
            ended.untried.append(one)
        else:
            # What is no ChannelFailed is a mistake in a channel: tried again all the same, and kept.
            failed = error if isinstance(error, ChannelFailed) else ChannelFailed(repr(error))
            if failed.retry_after_s is not None:
                self._close(min(failed.retry_after_s, MAX_DELAY_S))
            ended.failed.append(self._failure(one, failed))

    def _failure(self, one: Claim, error: ChannelFailed) -> Failure:
        reason, final = str(error)[:MAX_REASON], ""
        if error.permanent:
            final = "permanent"
        elif one.given_up:
            final = "its time is over"
        elif one.failures + 1 >= self._policy.tries:
            final = f"{one.failures + 1} tries"
        if final:
            log.warning("issuance %d is not notified by %s: %s", one.notice.issuance_id, self.channel.name, reason)
            return Failure(one.notice.outbox_id, f"{reason} ({final})", None)
        delay_s = min(MAX_DELAY_S, FIRST_DELAY_S * 2.0**one.failures) * random.uniform(0.5, 1.0)
        delay_s = max(delay_s, min(error.retry_after_s or 0.0, MAX_DELAY_S))
        log.warning("issuance %d waits %.1f s for its next try: %s", one.notice.issuance_id, delay_s, reason)
        return Failure(one.notice.outbox_id, reason, delay_s)

    def _is_poison(self, one: Claim, ended: _Ended) -> bool:
        crashes = one.tries - 1 - one.failures
        if crashes < MAX_CRASHES:
            return False
        reason = f"{crashes} times the process ended in the middle of it"
        log.error("issuance %d is not notified by %s: %s", one.notice.issuance_id, self.channel.name, reason)
        ended.failed.append(Failure(one.notice.outbox_id, reason, None))
        return True

    def _note(self, ended: _Ended) -> None:
        name = self.channel.name
        if ended.sent:
            took = deliveries.mark_sent(self._pool, name, [one.notice.outbox_id for one in ended.sent])
            metrics.NOTIFICATIONS_SENT.labels(name).inc(len(took))
            for took_s in took:
                metrics.NOTIFICATION_SECONDS.labels(name).observe(took_s)
            for one in ended.sent:
                log.info("notified: issuance %d of coupon %d, %s", one.notice.issuance_id, one.notice.coupon_id, name)
            ended.sent.clear()
        if ended.failed:
            deliveries.put_off(self._pool, name, ended.failed)
            dead = sum(one.delay_s is None for one in ended.failed)
            metrics.NOTIFICATIONS_DEAD.labels(name).inc(dead)
            metrics.NOTIFICATIONS_RETRIED.labels(name).inc(len(ended.failed) - dead)
            ended.failed.clear()
        if ended.untried:
            delay_s = self._closed_s() * random.uniform(1.0, 1.2)
            deliveries.release(self._pool, name, [one.notice.outbox_id for one in ended.untried], delay_s)
            ended.untried.clear()

    def _close(self, for_s: float) -> None:
        self._closed_until_s = max(self._closed_until_s, self._clock() + for_s)

    def _closed_s(self) -> float:
        return max(0.0, self._closed_until_s - self._clock())


_deliveries: dict[str, Delivery] = {}


def configure(delivery: Delivery) -> None:
    """Tell the jobs of this process what to work with. RQ can pass them ids only."""
    _deliveries[delivery.channel.name] = delivery


def deliver(channel: str, outbox_ids: list[int]) -> None:
    """Deliver a few messages: what RQ calls."""
    _deliveries[channel].deliver(outbox_ids)
