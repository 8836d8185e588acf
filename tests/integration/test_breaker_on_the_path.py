"""The circuit breaker where it stands: between the limits and the statement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pybreaker import STATE_CLOSED, STATE_OPEN

from couponapp.config import settings
from couponapp.errors import (
    ConstraintViolated,
    CouponNotFound,
    DeadlineExceeded,
    InvalidRequest,
    PoolExhausted,
    QueueFull,
    TooManyRequests,
)
from couponapp.guards.circuit_breaker import CircuitBreaker, Forced
from couponapp.storage.driver import is_database_failure
from couponapp.storage.pool import Pool
from tests.support.postgres_proxy import PostgresProxy
from tests.support.servers import wait_until

NewCoupon = Callable[..., int]
Bearer = Callable[[str], dict[str, str]]

QUICK = {
    "COUPON_BREAKER_WINDOW": "10",
    "COUPON_BREAKER_MIN_CALLS": "4",
    "COUPON_BREAKER_OPEN_S": "1",
    "COUPON_BREAKER_HALF_OPEN_CALLS": "2",
}


@pytest.fixture
def relayed_app(
    make_app: Callable[..., Flask], environ: dict[str, str], relay: PostgresProxy, database_url: str
) -> Flask:
    """An application whose answers from PostgreSQL can be lost."""
    return make_app(settings.load({**environ, **QUICK, "DATABASE_URL": relay.url}))


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
    client: FlaskClient, breaker: CircuitBreaker, relay: PostgresProxy, new_coupon: NewCoupon, bearer: Bearer
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


# PostgreSQL docs, appendix A: insufficient resources, operator intervention, system error, internal
# error; a lost connection, a cancelled statement, a lock not had in time, a node that only reads.
SPEAKS_AGAINST_IT = ["53000", "53100", "53300", "57014", "57P01", "57P03", "58030", "XX000", "XX002"]
SPEAKS_AGAINST_IT += ["08006", "55P03", "25006"]
# A constraint, a division by zero, our own wrong SQL, and what may work another time.
SPEAKS_AGAINST_NOBODY = ["23505", "22012", "25001", "42601", "42P01", "P0001", "40001", "40P01", "54001"]


def test_what_postgresql_says_decides_whether_it_speaks_against_it(pool: Pool) -> None:
    def is_failure(sqlstate: Any) -> bool:
        with pytest.raises(Exception) as raised:  # noqa: PT011  # of which kind is the question
            pool.execute("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '" + sqlstate + "'; END $$")
        return is_database_failure(raised.value)

    assert [sqlstate for sqlstate in SPEAKS_AGAINST_IT + SPEAKS_AGAINST_NOBODY if is_failure(sqlstate)] == (
        SPEAKS_AGAINST_IT
    )


def test_no_free_connection_in_time_speaks_against_it_and_what_we_shed_ourselves_does_not(
    make_pool: Callable[..., Pool], database_url: str
) -> None:
    pool = make_pool(database_url, size=1, deadline_ms=200)
    assert pool.warm_up(20)
    with pool.connection(), pytest.raises(PoolExhausted) as exhausted:
        pool.fetch_one("SELECT 1")
    assert is_database_failure(exhausted.value)
    ours: list[Exception] = [QueueFull(), DeadlineExceeded(), TooManyRequests(1), InvalidRequest(), CouponNotFound()]
    assert not any(is_database_failure(error) for error in [*ours, ConstraintViolated("any"), ValueError()])
