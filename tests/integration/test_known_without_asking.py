"""What a process knows by itself is answered without PostgreSQL, without Redis and without a limit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient

from couponapp.config import settings
from couponapp.issuing.statement import issue
from couponapp.local.postgres import free_port
from couponapp.planning import coupons
from couponapp.services import Services
from couponapp.storage.pool import Pool

NewCoupon = Callable[..., int]
Bearer = Callable[[str], dict[str, str]]
Ask = Callable[..., tuple[int, str]]


@pytest.fixture
def ask(make_app: Callable[..., Flask], environ: dict[str, str], bearer: Bearer) -> Ask:
    """Asks a process that cannot issue and would refuse a second attempt for a day."""
    nobody = f"redis://127.0.0.1:{free_port()}/0"
    app = make_app(settings.load({**environ, "REDIS_URL": nobody, "COUPON_LIMIT_USER": "1/day"}))
    service: Services = app.extensions["couponapp"]
    assert service.issue_pool.warm_up(20)  # what was never opened would open at its first use
    service.issue_pool.close()
    client: FlaskClient = app.test_client()

    def post(coupon_id: int, user: str, key: str = "") -> tuple[int, str]:
        headers = bearer(user) | ({"Idempotency-Key": key} if key else {})
        answer = client.post(f"/api/v1/coupons/{coupon_id}/issue", headers=headers)
        return answer.status_code, answer.get_json()["code"]

    return post


def test_not_found_not_open_closed_paused_and_sold_out_need_no_attempt(
    ask: Ask, pool: Pool, new_coupon: NewCoupon
) -> None:
    to_come, closed, over, paused, sold_out = (
        new_coupon(opens_in_s=60), new_coupon(), new_coupon(closes_in_s=-1), new_coupon(), new_coupon(total=1)
    )  # fmt: skip
    coupons.close(pool, closed)
    coupons.pause(pool, paused)
    issue(pool, sold_out, "lee")
    for coupon_id, expected in (
        (4711, (404, "COUPON_NOT_FOUND")),
        (to_come, (409, "NOT_OPEN")),
        (closed, (409, "CLOSED")),
        (over, (409, "CLOSED")),
        (paused, (409, "PAUSED")),
        (sold_out, (409, "SOLD_OUT")),
    ):
        assert [ask(coupon_id, "kim") for _ in range(3)] == [expected] * 3


def test_an_attempt_needs_more(ask: Ask, new_coupon: NewCoupon) -> None:
    # The negative control: this process really cannot issue, and really counts.
    open_one = new_coupon()
    assert [ask(open_one, "kim") for _ in range(2)] == [(503, "SERVICE_UNAVAILABLE"), (429, "TOO_MANY_REQUESTS")]


def test_who_comes_with_a_key_may_have_lost_an_answer_and_is_looked_up(
    ask: Ask, client: FlaskClient, bearer: Bearer, pool: Pool, new_coupon: NewCoupon
) -> None:
    coupon_id = new_coupon()
    issue(pool, coupon_id, "kim", "key-of-kim")
    coupons.close(pool, coupon_id)
    assert ask(coupon_id, "kim") == (409, "CLOSED")
    assert ask(coupon_id, "kim", "key-of-kim")[0] == 503  # it asks
    headers = bearer("kim") | {"Idempotency-Key": "key-of-kim"}
    again = client.post(f"/api/v1/coupons/{coupon_id}/issue", headers=headers)
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (201, "true")
