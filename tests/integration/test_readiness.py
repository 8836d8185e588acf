"""Readiness has a connection of its own: no jam elsewhere makes it lie, and it jams nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest
from flask import Flask

from couponapp.services import Services
from couponapp.storage.pool import Pool
from couponapp.web import create_app
from couponapp.web.current import EXTENSION

NewCoupon = Callable[..., int]
Bearer = Callable[[str], dict[str, str]]


@pytest.fixture
def services(app: Flask) -> Services:
    found: Services = app.extensions[EXTENSION]
    return found


@contextmanager
def jammed(*pools: Pool) -> Iterator[None]:
    """Every connection is in use, and stays so."""
    with ExitStack() as stack:
        for pool in pools:
            assert pool.warm_up(20)
            for _ in range(pool.stats()["pool_max"]):
                stack.enter_context(pool.connection(60))
        yield


def is_ready(app: Flask) -> bool:
    return app.test_client().get("/readyz").status_code == 200


def test_it_is_ready_while_issuing_and_look_ups_have_no_connection_left(app: Flask, services: Services) -> None:
    # Negative control: over the connections of the look-ups, the probe reports PostgreSQL as down.
    sharing = create_app(services.settings, replace(services, admin_pool=services.read_pool))
    with jammed(services.issue_pool, services.read_pool):
        assert is_ready(app)
        assert not is_ready(sharing)


def test_issuing_and_look_ups_go_on_while_administration_has_no_connection_left(
    app: Flask, services: Services, new_coupon: NewCoupon, bearer: Bearer
) -> None:
    coupon_id, client = new_coupon(), app.test_client()
    with jammed(services.admin_pool):
        assert not is_ready(app)  # the control: it is jammed
        assert client.post(f"/api/v1/coupons/{coupon_id}/issue", headers=bearer("kim")).status_code == 201
        assert client.get("/api/v1/me/coupons", headers=bearer("kim")).status_code == 200


def test_a_stranger_who_locks_the_switches_stops_neither_readiness_nor_issuing(
    app: Flask, services: Services, pool: Pool, new_coupon: NewCoupon, bearer: Bearer
) -> None:
    coupon_id, client = new_coupon(), app.test_client()
    with pool.connection(60) as stranger, stranger.transaction():
        stranger.execute("LOCK TABLE switches IN ACCESS EXCLUSIVE MODE")
        assert not services.switches.refresh()
        assert is_ready(app)
        assert client.post(f"/api/v1/coupons/{coupon_id}/issue", headers=bearer("kim")).status_code == 201
    assert services.switches.refresh()
