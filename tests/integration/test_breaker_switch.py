"""The operator's switch of the circuit breaker, in one process."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient

from couponapp.config import settings
from couponapp.config.settings import Settings
from couponapp.guards.circuit_breaker import CircuitBreaker, Forced
from couponapp.guards.switch_reader import SwitchReader
from couponapp.operating import switches as switchboard
from couponapp.storage.pool import Pool
from tests.support.postgres_proxy import PostgresProxy
from tests.support.still import still_services

NewCoupon = Callable[..., int]
Bearer = Callable[[str], dict[str, str]]


@pytest.fixture
def app(make_app: Callable[..., Flask], config: Settings) -> Flask:
    """The application without its thread that reads the switches: the tests read them."""
    return make_app(config, still_services(config))


@pytest.fixture
def breaker(app: Flask) -> CircuitBreaker:
    found: CircuitBreaker = app.extensions["couponapp"].breaker
    return found


@pytest.fixture
def switches(app: Flask) -> SwitchReader:
    found: SwitchReader = app.extensions["couponapp"].switches
    return found


def attempt(client: FlaskClient, coupon_id: int, headers: dict[str, str]) -> int:
    return client.post(f"/api/v1/coupons/{coupon_id}/issue", headers=headers).status_code


def force(pool: Pool, forced: str) -> None:
    switchboard.set_value(pool, switchboard.ISSUE_BREAKER, forced)


def test_the_operators_setting_takes_effect_at_the_next_read(
    client: FlaskClient, switches: SwitchReader, pool: Pool, new_coupon: NewCoupon, bearer: Bearer
) -> None:
    coupon_id = new_coupon()
    assert attempt(client, coupon_id, bearer("kim")) == 201
    force(pool, "open")
    assert attempt(client, coupon_id, bearer("lee")) == 201  # the control: nobody has read it yet
    switches.refresh()
    assert attempt(client, coupon_id, bearer("park")) == 503
    force(pool, "auto")
    switches.refresh()
    assert attempt(client, coupon_id, bearer("park")) == 201


def test_a_deleted_row_resets_and_an_unknown_value_has_no_effect(
    switches: SwitchReader, breaker: CircuitBreaker, pool: Pool
) -> None:
    seen = []
    for forced in ("open", "ajar", None):
        force(pool, forced) if forced else pool.execute("DELETE FROM switches")
        switches.refresh()
        seen.append(breaker.forced)
    assert seen == [Forced.OPEN, Forced.OPEN, Forced.NO]


def test_forced_closed_it_does_not_trip_whatever_postgresql_does(
    make_app: Callable[..., Flask],
    environ: dict[str, str],
    relay: PostgresProxy,
    database_url: str,
    pool: Pool,
    new_coupon: NewCoupon,
    bearer: Bearer,
) -> None:
    quick = {"COUPON_BREAKER_WINDOW": "4", "DATABASE_URL": relay.url}
    app, coupon_id = make_app(settings.load({**environ, **quick})), new_coupon()
    client, parts = app.test_client(), app.extensions["couponapp"]
    force(pool, "closed")
    parts.switches.refresh()
    assert attempt(client, coupon_id, bearer("kim")) == 201
    relay.loses = lambda: True
    assert [attempt(client, coupon_id, bearer(f"user-{number}")) for number in range(6)] == [503] * 6
    assert parts.breaker.refused == 0
    # Whoever reads the switch cannot either; what was decided stays decided.
    assert not parts.switches.refresh()
    assert (parts.breaker.forced, parts.breaker.rates().failed) == (Forced.CLOSED, 100)
    parts.breaker.force(Forced.NO)  # the control: by its own rules it trips
    for number in range(6):
        attempt(client, coupon_id, bearer(f"user-{number}"))
    assert parts.breaker.refused > 0
