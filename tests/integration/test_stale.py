"""While PostgreSQL is away, what was seen last is still served, and says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask import Flask

from couponapp.config import settings
from couponapp.planning import coupons
from couponapp.storage import migrations
from couponapp.storage.pool import Pool
from tests.support.servers import own_postgres, service_environ, wait_until


def test_coupons_are_served_as_stale_while_postgresql_is_away_and_fresh_when_it_is_back(
    make_app: Callable[..., Flask], make_pool: Callable[..., Pool], redis_url: str, tmp_path: Path
) -> None:
    with own_postgres(tmp_path, "fsync=off") as server:
        migrations.migrate(server.url)
        coupon_id = coupons.create(make_pool(server.url), name="쿠폰", total=10, opens_at=-60.0, closes_at=3600.0)
        client = make_app(settings.load(service_environ(server.url, redis_url))).test_client()

        def seen(path: str) -> tuple[int, dict[str, Any]]:
            response = client.get(path)
            return response.status_code, response.get_json()["data"]

        one, all_of_them = f"/api/v1/coupons/{coupon_id}", "/api/v1/coupons"
        assert seen(one)[1]["stale"] is False
        assert seen(all_of_them)[1]["coupons"][0]["stale"] is False
        server.end()
        wait_until(lambda: seen(one)[1]["stale"], timeout_s=20, what="it is told as stale")
        wait_until(lambda: seen(all_of_them)[1]["coupons"][0]["stale"], timeout_s=20, what="in the list too")
        assert (seen(one)[0], seen(one)[1]["remaining"], seen(all_of_them)[0]) == (200, 10, 200)
        server.start(tmp_path)
        wait_until(lambda: not seen(one)[1]["stale"], timeout_s=30, what="it is fresh again")
