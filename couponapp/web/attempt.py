"""The issue path: what every attempt goes through, in this order, from the API and the pages."""

from __future__ import annotations

import time
from functools import lru_cache

from prometheus_client import Counter

from couponapp import metrics
from couponapp.errors import CouponAppError
from couponapp.guards.deadline import Deadline
from couponapp.issuing.catalogue import Coupon, Status
from couponapp.issuing.statement import IssueRequest, IssueResult, Outcome
from couponapp.web import inputs
from couponapp.web.parts import Parts


def attempt_to_issue(service: Parts, coupon_id: str, user_id: str, *, key: str | None, address: str) -> IssueResult:
    """The issue path, shared by the API and the pages.

    In this order: what is known, the backlog, the limits, the breaker, a place, the statement.

    Args:
        service: the parts of this process.
        coupon_id: as it stands in the path.
        user_id: who asks.
        key: the idempotency key, where there is one.
        address: the client's network address.

    Raises:
        couponapp.errors.TooManyRequests: a rate limit refuses.
        couponapp.errors.Unavailable: PostgreSQL does not answer in time, or more comes than can be served.
    """
    started_s = time.perf_counter()
    deadline = Deadline(service.settings.deadline_ms / 1000)
    code, known = "INTERNAL_ERROR", None
    try:
        number = inputs.parse_id(coupon_id)
        coupon = service.catalogue.coupon(number, wait_s=deadline.remaining_s()) if number else None
        if coupon is None:
            attempt = IssueResult(Outcome.COUPON_NOT_FOUND)
        elif (known := _known(service, coupon, user_id, key, mono_s := service.catalogue.mono_s())) is not None:
            attempt = known
        else:
            service.backlog.check()
            # In the moment in which this process cannot tell whether the coupon has opened, the
            # statement tells it, and an early click is not counted.
            if coupon.has_surely_opened(mono_s):
                service.limits.check(user_id, address)
            with service.breaker.calling() as call:
                attempt = service.bulkhead.ask((coupon.id, IssueRequest(user_id, key)), deadline, begins=call.begin)
        code = attempt.outcome.value
        return attempt
    except CouponAppError as error:
        code = error.code
        raise
    finally:
        _counter(code).inc()
        if not known:  # a herd that is told what is known would hide how long the others take
            metrics.ATTEMPT_SECONDS.observe(time.perf_counter() - started_s)


@lru_cache(maxsize=64)
def _counter(code: str) -> Counter:
    return metrics.ATTEMPTS.labels(code)


def _known(service: Parts, coupon: Coupon, user_id: str, key: str | None, mono_s: float) -> IssueResult | None:
    """What needs no attempt, costs no round trip and counts towards no limit."""
    if not coupon.may_have_opened(mono_s):  # nobody can hold it yet
        wait_s = (coupon.opens_at - coupon.now(mono_s)).total_seconds()
        return IssueResult(Outcome.NOT_OPEN, None, coupon.opens_at, wait_s)
    # Who comes with a key may have got one and lost the answer: that is worth a look.
    if key is None and coupon.has_surely_closed(mono_s):
        return IssueResult(Outcome.CLOSED)
    if key is None and coupon.is_surely_paused(mono_s):
        return IssueResult(Outcome.PAUSED)
    if coupon.status(mono_s) is Status.SOLD_OUT and service.sold_out.is_sold_out_for(coupon, user_id, mono_s):
        return IssueResult(Outcome.SOLD_OUT)
    return None
