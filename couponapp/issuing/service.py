"""The use case: one user requests one coupon. The API and the pages call the same method."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import lru_cache
from types import TracebackType
from typing import Protocol, Self

from prometheus_client import Counter

from couponapp import metrics
from couponapp.errors import CouponAppError
from couponapp.guards.batcher import Batcher
from couponapp.guards.deadline import Deadline
from couponapp.guards.hits import RateLimitStatus
from couponapp.issuing.catalogue import Catalogue, Coupon, Status
from couponapp.issuing.sold_out import SoldOut
from couponapp.issuing.statement import IssueRequest, IssueResult, Outcome


class Overload(Protocol):
    """Knows whether this process can keep up."""

    def check(self) -> None:
        """Let a request pass, or raise `couponapp.errors.Overloaded`."""


class Limits(Protocol):
    """Counts attempts."""

    def hit(self, user_id: str, address: str) -> RateLimitStatus:
        """Count an attempt and return how it stands, or raise `couponapp.errors.TooManyRequests`."""


class GuardedCall(Protocol):
    """A call that the circuit breaker has let through."""

    def begin(self) -> None:
        """Say that PostgreSQL works from now on: an earlier wait is none of its slowness."""


class Breaker(Protocol):
    """Refuses calls while too many have failed."""

    def calling(self) -> AbstractContextManager[GuardedCall]:
        """Guard a block, or raise `couponapp.errors.CircuitOpen`."""


@dataclass(frozen=True, kw_only=True)
class IssueService:
    """Issues coupons. Made once per process; what it needs from outside is handed in.

    Attributes:
        catalogue: what is offered, cached.
        sold_out: the holders of sold-out coupons, cached.
        overload: refuses requests that have waited too long already.
        limits: counts attempts per user, address, process and for all.
        breaker: refuses attempts while PostgreSQL fails.
        batcher: runs the statement; the batch key is the coupon's id.
        deadline_s: the most that one request may take, all waits together, in seconds.
    """

    catalogue: Catalogue
    sold_out: SoldOut
    overload: Overload
    limits: Limits
    breaker: Breaker
    batcher: Batcher[int, IssueRequest, IssueResult]
    deadline_s: float

    def issue(self, coupon_id: int, user_id: str, key: str | None = None, address: str = "") -> IssueResult:
        """Request one coupon for one user. «Issued» means committed.

        Args:
            coupon_id: 1 to 2^63 - 1.
            user_id: of the caller, 1 to 128 printable characters.
            key: the idempotency key, where the caller sent one.
            address: the caller's network address.

        Raises:
            couponapp.errors.TooManyRequests: a rate limit refuses.
            couponapp.errors.Unavailable: PostgreSQL does not answer in time, or more requests arrive
                than can be served.
        """
        with _Measured() as attempt:
            deadline = Deadline(self.deadline_s)
            # 1. What the catalogue and the sold-out list know costs no round trip and uses up no limit.
            coupon = self.catalogue.coupon(coupon_id, wait_s=deadline.remaining_s())
            if coupon is None:
                return attempt.ended(IssueResult(Outcome.COUPON_NOT_FOUND))
            now_s = self.catalogue.mono_s()
            if early_result := self._early_result(coupon, user_id, key, now_s):
                return attempt.ended_early(early_result)
            # 2. A request that has waited too long in the socket is refused before it costs more.
            self.overload.check()
            # 3. All rate limits let the attempt pass and count it, or one refuses and none counts. While
            #    this process cannot tell whether the coupon has opened, the statement decides, and an
            #    early click counts towards no limit.
            status = self.limits.hit(user_id, address) if coupon.has_surely_opened(now_s) else None
            # 4. While too many statements fail, the circuit breaker refuses at once.
            with self.breaker.calling() as call:
                # 5. Requests for one coupon that arrive while all connections are busy are batched.
                # 6. One SQL statement serves the batch: couponapp.issuing.statement.
                result = self.batcher.submit(
                    IssueRequest(user_id, key),
                    batch_key=coupon.id,
                    unique_key=user_id,
                    deadline=deadline,
                    on_start=call.begin,
                )
            return attempt.ended(replace(result, rate_limit=status) if status else result)

    def _early_result(self, coupon: Coupon, user_id: str, key: str | None, now_s: float) -> IssueResult | None:
        if not coupon.may_have_opened(now_s):  # no user can hold it yet
            wait_s = (coupon.opens_at - coupon.now(now_s)).total_seconds()
            return IssueResult(Outcome.NOT_OPEN, None, coupon.opens_at, wait_s)
        # A request with a key may be a retry after a lost answer: the statement finds its issuance.
        if key is None and coupon.has_surely_closed(now_s):
            return IssueResult(Outcome.CLOSED)
        if key is None and coupon.is_surely_paused(now_s):
            return IssueResult(Outcome.PAUSED)
        if coupon.status(now_s) is Status.SOLD_OUT and self.sold_out.is_sold_out_for(coupon, user_id, now_s):
            return IssueResult(Outcome.SOLD_OUT)
        return None


class _Measured:
    """Counts one attempt by how it ended, and takes its time unless it ended early.

    Early results come in crowds and would hide how long the other attempts take.
    """

    def __init__(self) -> None:
        self._code = "INTERNAL_ERROR"
        self._early = False

    def __enter__(self) -> Self:
        self._started_s = time.perf_counter()
        return self

    def ended(self, result: IssueResult) -> IssueResult:
        """Keep the outcome and return the result."""
        self._code = result.outcome.value
        return result

    def ended_early(self, result: IssueResult) -> IssueResult:
        """Keep the outcome of a result that cost no round trip, and return it."""
        self._early = True
        return self.ended(result)

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        if isinstance(error, CouponAppError):
            self._code = error.code
        _counter(self._code).inc()
        if not self._early:
            metrics.ATTEMPT_SECONDS.observe(time.perf_counter() - self._started_s)


@lru_cache(maxsize=64)
def _counter(code: str) -> Counter:
    return metrics.ATTEMPTS.labels(code)
