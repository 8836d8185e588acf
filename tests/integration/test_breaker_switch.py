"""The operator's switch of the circuit breaker: in every process, at once, and for as long as it says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from couponapp.config import settings
from couponapp.config.settings import Settings
from couponapp.guards.circuit_breaker import CircuitBreaker, Forced
from couponapp.guards.switch_reader import SwitchReader
from couponapp.operating import switches as switchboard
from couponapp.services import compose
from couponapp.storage.pool import Pool
from tests.support.postgres_proxy import PostgresProxy
from tests.support.servers import ROOT, Web, running_web, wait_until

NewCoupon = Callable[..., int]
Bearer = Callable[[str], dict[str, str]]


@pytest.fixture
def app(make_app: Callable[..., Flask], config: Settings) -> Flask:
    """The application without its thread that reads the switches: the tests read them."""
    services = compose(config)
    services._lifecycle.begin()
    return make_app(config, services)


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


def test_what_the_operator_decides_holds_from_the_next_read_on(
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


def test_a_row_that_is_gone_or_means_nothing_is_nobodys_decision(
    switches: SwitchReader, breaker: CircuitBreaker, pool: Pool
) -> None:
    seen = []
    for forced in ("open", "ajar", None):
        force(pool, forced) if forced else pool.execute("DELETE FROM switches")
        switches.refresh()
        seen.append(breaker.forced)
    assert seen == [Forced.OPEN, Forced.OPEN, Forced.NO]


def test_forced_closed_it_does_not_trip_however_postgresql_fares(
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


def flask(environ: dict[str, str], *arguments: str) -> Any:
    command = [sys.executable, "-m", "flask", *arguments, "--json"]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout)


def gauges(web: Web, name: str, **labels: str) -> dict[str, float]:
    """A gauge's values by process."""
    found = {}
    for line in web.request("GET", "/metrics").body.decode().splitlines():
        match = re.fullmatch(rf"{name}{{(.*)}} (\S+)", line)
        if match and labels.items() <= (seen := dict(re.findall(r'(\w+)="([^"]*)"', match[1]))).items():
            found[seen["pid"]] = float(match[2])
    return found


def all_are_forced(web: Web, forced: str) -> bool:
    values = gauges(web, "coupon_breaker_forced", breaker="issue", forced=forced)
    return len(values) == 2 and set(values.values()) == {1.0}


def test_one_command_reaches_every_process_of_every_host_and_is_kept_across_restarts(
    tmp_path: Path, environ: dict[str, str], new_coupon: NewCoupon, token_of: Callable[[str], str]
) -> None:
    path = f"/api/v1/coupons/{new_coupon(total=1000)}/issue"
    users = iter(range(10_000))

    def issues(web: Web) -> bool:
        return web.request("POST", path, token=token_of(f"user-{next(users)}")).status == 201

    with running_web(tmp_path, environ) as one, running_web(tmp_path, environ) as another:
        for web in (one, another):
            assert issues(web)
            wait_until(lambda web=web: all_are_forced(web, "auto"), timeout_s=20, what="nothing is forced")
        assert flask(environ, "breaker", "force", "open", "--note", "minji: failover at 15:00")["forced"] == "open"
        for web in (one, another):
            wait_until(lambda web=web: all_are_forced(web, "open"), timeout_s=20, what="all processes follow")
            assert not any(issues(web) for _ in range(8))
            assert "switch breaker.issue: not set → open" in web.log.read_text()
            wait_until(
                lambda web=web: sum(gauges(web, "coupon_breaker_refused_calls", breaker="issue").values()) == 8,
                timeout_s=20,
                what="refusals are counted",
            )
            assert set(gauges(web, "coupon_breaker_state", state="open").values()) == {1.0}
            for name in ("window_calls", "failure_percent", "slow_percent"):
                assert len(gauges(web, f"coupon_breaker_{name}", breaker="issue")) == 2, name
        assert max(gauges(one, "coupon_switches_age_seconds").values()) < 20
    with running_web(tmp_path, environ) as restarted:
        assert not any(issues(restarted) for _ in range(8))
        flask(environ, "breaker", "force", "auto")
        wait_until(lambda: all(issues(restarted) for _ in range(4)), timeout_s=20, what="it issues again")
