"""The moment of opening: a click that this process takes for on time and the database for early is not counted."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
from flask import Flask

from couponapp.config import settings
from couponapp.errors import TooManyRequests
from couponapp.issuing.catalogue import Catalogue
from couponapp.issuing.statement import Outcome
from couponapp.web.attempt import attempt_to_issue
from couponapp.web.parts import Parts

NewCoupon = Callable[..., int]
STEP_S = 100.0


@pytest.fixture
def parts(make_app: Callable[..., Flask], environ: dict[str, str]) -> tuple[Flask, Parts]:
    """A process whose reads seem to take 100 s each: so long it cannot tell what the database's clock shows."""
    app = make_app(settings.load({**environ, "COUPON_LIMIT_USER": "1/minute"}))
    found: Parts = app.extensions["couponapp"]
    ticks = itertools.count(1)
    return app, replace(found, catalogue=Catalogue(found.read_pool, clock=lambda: next(ticks) * STEP_S))


def test_an_early_click_in_the_moment_of_doubt_uses_up_no_limit(
    parts: tuple[Flask, Parts], new_coupon: NewCoupon
) -> None:
    app, service = parts
    coupon_id = new_coupon(opens_in_s=1.5 * STEP_S)
    with app.test_request_context():
        outcomes = [attempt_to_issue(service, str(coupon_id), "kim", key=None, address="").outcome for _ in range(3)]
    assert outcomes == [Outcome.NOT_OPEN] * 3


def test_a_click_that_is_surely_on_time_is_counted(parts: tuple[Flask, Parts], new_coupon: NewCoupon) -> None:
    # The negative control: the same process, the same limit.
    app, service = parts
    coupon_id = new_coupon()
    with app.test_request_context():
        assert attempt_to_issue(service, str(coupon_id), "kim", key=None, address="").outcome is Outcome.ISSUED
        with pytest.raises(TooManyRequests):
            attempt_to_issue(service, str(coupon_id), "kim", key=None, address="")
