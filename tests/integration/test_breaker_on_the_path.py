"""The circuit breaker where it stands: between the limits and the statement."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pybreaker import STATE_CLOSED, STATE_OPEN

from couponapp import settings
from couponapp.errors import Shed, StatementTimedOut
from couponapp.guards.breaker import CircuitBreaker, Forced
from couponapp.web.app import speaks_against_postgresql
from tests.pgrelay import PgRelay
from tests.servers import wait_until

NewCoupon = Callable[..., int]
Bearer = Callable[[str], dict[str, str]]

QUICK = {
    "COUPON_BREAKER_WINDOW": "10",
    "COUPON_BREAKER_MIN_CALLS": "4",
    "COUPON_BREAKER_OPEN_S": "1",
    "COUPON_BREAKER_HALF_OPEN_CALLS": "2",
}


@pytest.fixture
def relayed_app(make_app: Callable[..., Flask], environ: dict[str, str], relay: PgRelay, database_url: str) -> Flask:
    """An application whose answers from PostgreSQL can be lost."""
    return make_app(settings.load({**environ, **QUICK, "DATABASE_URL": relay.url(database_url)}))


@pytest.fixture
def client(relayed_app: Flask) -> FlaskClient:
    return relayed_app.test_client()


@pytest.fixture
def breaker(relayed_app: Flask) -> CircuitBreaker:
    found: CircuitBreaker = relayed_app.extensions["couponapp"].breaker
    return found


def attempt(client: FlaskClient, coupon_id: int, headers: dict[str, str]) -> str:
    return str(client.post(f"/api/v1/coupons/{coupon_id}/issue", headers=headers).get_json()["code"])


def test_failures_open_it_then_nothing_is_sent_and_it_closes_by_itself(
    client: FlaskClient, breaker: CircuitBreaker, relay: PgRelay, new_coupon: NewCoupon, bearer: Bearer
) -> None:
    coupon_id = new_coupon(total=1000)
    assert attempt(client, coupon_id, bearer("first")) == "ISSUED"
    relay.loses = lambda: True
    wait_until(
        lambda: attempt(client, coupon_id, bearer("kim")) and breaker.current_state == STATE_OPEN,
        timeout_s=30,
        what="it is open",
    )
    client.get(f"/api/v1/coupons/{coupon_id}")
    before = relay.round_trips
    breaker.force(Forced.OPEN)  # so that its second of being open cannot end in the middle of this
    answers = [client.post(f"/api/v1/coupons/{coupon_id}/issue", headers=bearer("lee")) for _ in range(20)]
    assert {answer.status_code for answer in answers} == {503}
    assert all(1 <= int(answer.headers["Retry-After"]) <= 5 for answer in answers)
    # The catalogue alone goes on looking whether PostgreSQL is back.
    assert relay.round_trips - before < len(answers)
    relay.loses = lambda: False
    breaker.force(Forced.NO)
    breaker.open()
    wait_until(lambda: attempt(client, coupon_id, bearer("park")) == "ISSUED", timeout_s=30, what="it issues again")
    wait_until(
        lambda: attempt(client, coupon_id, bearer("park")) and breaker.current_state == STATE_CLOSED,
        timeout_s=30,
        what="it is closed",
    )


def test_refusals_of_the_coupon_of_the_limits_and_of_bad_input_do_not_open_it(
    make_app: Callable[..., Flask], environ: dict[str, str], new_coupon: NewCoupon, bearer: Bearer
) -> None:
    app = make_app(settings.load({**environ, **QUICK, "COUPON_LIMIT_USER": "10/minute"}))
    client, breaker = app.test_client(), app.extensions["couponapp"].breaker
    sold_out, held = new_coupon(total=0), new_coupon()
    codes = {attempt(client, coupon_id, bearer("kim")) for _ in range(15) for coupon_id in (sold_out, held, 4711)}
    bad = client.post(
        f"/api/v1/coupons/{held}/issue", headers=bearer("lee"), data=b"[", content_type="application/json"
    )
    assert bad.status_code == 400
    assert codes == {"SOLD_OUT", "ISSUED", "ALREADY_ISSUED", "COUPON_NOT_FOUND", "TOO_MANY_REQUESTS"}
    assert breaker.current_state == STATE_CLOSED
    assert breaker.rates().failed == 0


def test_what_we_shed_ourselves_does_not_speak_against_postgresql() -> None:
    assert not speaks_against_postgresql(Shed())
    assert not speaks_against_postgresql(ValueError())
    assert speaks_against_postgresql(StatementTimedOut())
