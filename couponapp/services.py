"""What one web process works with: composed in one function, started after the fork, closed at the end.

    services = services.compose(settings)   # connects nowhere
    services.start()                        # in the process that serves: threads, operators' decisions
    services.issuing.issue(…)
    services.close()

`create_app` composes them. gunicorn's hooks start and close them; under any other server the first
request starts them. Nothing here holds a rule: each part says in its own module what it does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from redis import Redis

from couponapp.auth.tokens import CachingVerifier, verifier
from couponapp.config.settings import Settings
from couponapp.guards.batcher import Batcher
from couponapp.guards.circuit_breaker import CircuitBreaker, Forced, Rules, StateLog
from couponapp.guards.deadline import Deadline
from couponapp.guards.overload import OverloadGuard
from couponapp.guards.rate_limits import FallbackCounters, LimitRates, RateLimits
from couponapp.guards.strategy import AllOrNone
from couponapp.guards.switch_reader import SwitchReader
from couponapp.issuing.catalogue import Catalogue
from couponapp.issuing.service import IssueService
from couponapp.issuing.sold_out import SoldOut
from couponapp.issuing.statement import IssueRequest, IssueResult, issue_batch
from couponapp.operating import gauges, switches
from couponapp.storage.driver import is_database_failure
from couponapp.storage.pool import Pool, Timeouts
from couponapp.storage.redis import connect

# A ping that takes longer than this counts as no answer.
PING_TIMEOUT_S = 0.2
# Share of the deadline that a request must have left when its batch starts.
MIN_REMAINING = 0.3
# So many users in one statement cost little more than one (docs/decisions/0020), and a batch that
# fails or waits for a lock takes no more than these with it.
MAX_BATCH_SIZE = 50
# Probes and the operators' switches: one connection, which neither issuing nor look-ups can use
# up, and bounds that a load balancer's patience allows for. The lock bound is short, because only
# the switches can be locked and the next probe needs the connection.
ADMIN_TIMEOUTS = Timeouts(total_s=1.0, wait_s=0.8, lock_ms=200, statement_ms=600)
MAX_WAITING_PROBES = 50
# How long a thread may take to notice that the process ends, in seconds.
THREAD_END_S = 1.0


@dataclass
class _Lifecycle:
    """Whether the threads run. One object for all copies of `Services`."""

    started: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)
    ending: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)

    def begin(self) -> bool:
        """Return whether this call is the first one."""
        with self.lock:
            first, self.started = not self.started, True
            return first


@dataclass(frozen=True, kw_only=True)
class Services:
    """One of each, for all requests of a process.

    Attributes:
        settings: what the process was started with.
        verifier: verifies bearer tokens, and caches what it has verified.
        issue_pool: for the issue statement.
        read_pool: for look-ups.
        admin_pool: for probes and the operators' switches.
        catalogue: what is offered.
        overload: how far behind the event loop is.
        breaker: around the issue statement.
        counters: of all rate limits.
        issuing: the use case.
        switches: what operators have decided.
        redis: for the readiness probe.
    """

    settings: Settings
    verifier: CachingVerifier
    issue_pool: Pool
    read_pool: Pool
    admin_pool: Pool
    catalogue: Catalogue
    overload: OverloadGuard
    breaker: CircuitBreaker
    counters: FallbackCounters
    issuing: IssueService
    switches: SwitchReader
    redis: Redis
    _lifecycle: _Lifecycle = field(default_factory=_Lifecycle)

    @property
    def pools(self) -> tuple[Pool, ...]:
        """All connection pools."""
        return (self.issue_pool, self.read_pool, self.admin_pool)

    def start(self, *, wait_s: float = 0.0) -> None:
        """Start the threads of this process; safe to call again. Call it after a fork: threads do not survive one.

        Args:
            wait_s: how long to wait for full pools, in seconds. With it, what operators have decided
                is known before this returns; without, within a second.
        """
        if self._lifecycle.started or not self._lifecycle.begin():
            return
        if wait_s:
            self._warm_up(wait_s)
            self.switches.refresh()
        self._start_thread("switches", lambda: self.switches.watch(self._lifecycle.ending))
        self._start_thread("gauges", self._record_gauges)

    def close(self) -> None:
        """End the threads and close all connections, so that PostgreSQL need not find out by itself."""
        self._lifecycle.ending.set()
        for thread in self._lifecycle.threads:
            thread.join(THREAD_END_S)
        for pool in self.pools:
            with suppress(Exception):  # the process ends: the others must be closed all the same
                pool.close()
        self.redis.close()

    def _warm_up(self, wait_s: float) -> None:
        """Let all pools connect at the same time; where PostgreSQL is away, serve without it after a while."""
        give_up_s = time.monotonic() + wait_s
        for pool in self.pools:
            pool.warm_up(0)
        for pool in self.pools:
            pool.warm_up(give_up_s - time.monotonic())

    def _start_thread(self, name: str, run: Callable[[], None]) -> None:
        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        self._lifecycle.threads.append(thread)

    def _record_gauges(self) -> None:
        while True:
            gauges.record(pools=self.pools, breaker=self.breaker, overload=self.overload, switches=self.switches)
            if self._lifecycle.ending.wait(gauges.EVERY_S):
                return


def compose(settings: Settings) -> Services:
    """Make the services of one process. Connects nowhere: each part connects at its first use.

    Args:
        settings: checked for the web; see `Settings.require_for_web`.

    Raises:
        couponapp.errors.ConfigurationError: a setting is wrong.
    """
    timeouts = Timeouts.within(settings.deadline_ms)
    url = settings.database_url
    issue_pool = Pool(url, name="issue", max_size=settings.pool_issue, timeouts=timeouts)
    read_pool = Pool(url, name="read", max_size=settings.pool_read, timeouts=timeouts, max_waiting=settings.queue_read)
    admin_pool = Pool(url, name="admin", max_size=1, timeouts=ADMIN_TIMEOUTS, max_waiting=MAX_WAITING_PROBES)
    catalogue = Catalogue(read_pool)
    overload = OverloadGuard(target_s=settings.backlog_ms / 1000, patience_s=settings.deadline_ms / 1000)
    counters = FallbackCounters(
        lambda timeout_s: connect(settings.redis_url, timeout_s=timeout_s), processes=settings.web_processes
    )
    breaker = CircuitBreaker(
        "issue", is_failure=is_database_failure, rules=_breaker_rules(settings), listeners=[StateLog()]
    )
    return Services(
        settings=settings,
        verifier=verifier(settings),
        issue_pool=issue_pool,
        read_pool=read_pool,
        admin_pool=admin_pool,
        catalogue=catalogue,
        overload=overload,
        breaker=breaker,
        counters=counters,
        issuing=IssueService(
            catalogue=catalogue,
            sold_out=SoldOut(read_pool),
            overload=overload,
            limits=rate_limits(settings, counters),
            breaker=breaker,
            batcher=issue_batcher(settings, issue_pool),
            deadline_s=settings.deadline_ms / 1000,
        ),
        switches=_switch_reader(admin_pool, breaker),
        redis=connect(settings.redis_url, timeout_s=PING_TIMEOUT_S),
    )


def issue_batcher(
    settings: Settings, pool: Pool, *, max_batch_size: int = MAX_BATCH_SIZE
) -> Batcher[int, IssueRequest, IssueResult]:
    """Make the batcher that runs the issue statement.

    Args:
        settings: of the process.
        pool: the statement's connections; as many batches run at the same time.
        max_batch_size: users that may share a statement.
    """

    def run(coupon_id: int, requests: Sequence[IssueRequest], timeout_s: float) -> list[IssueResult]:
        return issue_batch(pool, coupon_id, requests, deadline=Deadline(timeout_s))

    return Batcher(
        run,
        max_concurrent=settings.pool_issue,
        max_waiting=settings.queue_issue,
        max_batch_size=max_batch_size,
        min_remaining_s=MIN_REMAINING * settings.deadline_ms / 1000,
    )


def rate_limits(settings: Settings, counters: FallbackCounters) -> RateLimits:
    """Make the rate limits of the issue path.

    Args:
        settings: of the process.
        counters: of all its rate limits.
    """
    rates = LimitRates(settings.limit_user, settings.limit_global, settings.limit_process, settings.limit_address)
    return RateLimits(AllOrNone(counters=counters), scope="issue", rates=lambda: rates)


def _switch_reader(pool: Pool, breaker: CircuitBreaker) -> SwitchReader:
    reader = SwitchReader(lambda: switches.read_all(pool))
    reader.on_change(switches.ISSUE_BREAKER, lambda value: breaker.force(Forced(value or Forced.NO)))
    return reader


def _breaker_rules(settings: Settings) -> Rules:
    return Rules(
        window=settings.breaker_window,
        failure_rate=settings.breaker_failure_rate,
        min_calls=settings.breaker_min_calls,
        open_s=settings.breaker_open_s,
        half_open_calls=settings.breaker_half_open_calls,
        slow_call_s=settings.breaker_slow_ms / 1000,
        slow_rate=settings.breaker_slow_rate,
        # A guarded call ends within the deadline; one that is not back by twice that never will be.
        permit_s=2 * settings.deadline_ms / 1000,
    )
