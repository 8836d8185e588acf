"""The moment of opening: a click that this process takes for on time and the database for early is not counted."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from couponapp.config import settings
from couponapp.errors import TooManyRequests
from couponapp.issuing.catalogue import Catalogue
from couponapp.issuing.service import IssueService
from couponapp.issuing.statement import Outcome
from couponapp.services import compose

NewCoupon = Callable[..., int]
STEP_S = 100.0


@pytest.fixture
def issuing(environ: dict[str, str]) -> Iterator[IssueService]:
    """A process whose reads seem to take 100 s each: it cannot tell what the database's clock shows."""
    services = compose(settings.load({**environ, "COUPON_LIMIT_USER": "1/minute"}))
    ticks = itertools.count(1)
    yield replace(services.issuing, catalogue=Catalogue(services.read_pool, clock=lambda: next(ticks) * STEP_S))
    services.close()


def test_an_early_click_in_the_moment_of_doubt_uses_up_no_limit(issuing: IssueService, new_coupon: NewCoupon) -> None:
    coupon_id = new_coupon(opens_in_s=1.5 * STEP_S)
    assert [issuing.issue(coupon_id, "kim").outcome for _ in range(3)] == [Outcome.NOT_OPEN] * 3


def test_a_click_that_is_surely_on_time_is_counted(issuing: IssueService, new_coupon: NewCoupon) -> None:
    # Negative control: the same process, the same limit.
    coupon_id = new_coupon()
    assert issuing.issue(coupon_id, "kim").outcome is Outcome.ISSUED
    with pytest.raises(TooManyRequests):
        issuing.issue(coupon_id, "kim")
