"""The services of one process: composed once, started after the fork or at the first request, closed at the end."""

from __future__ import annotations

import http.client
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask

from couponapp.config import settings
from couponapp.config.settings import Settings
from couponapp.errors import Unavailable
from couponapp.local.postgres import free_port
from couponapp.operating import switches
from couponapp.services import Services, compose
from couponapp.storage.pool import Pool
from couponapp.web.current import EXTENSION
from tests.support.servers import ROOT, end, send, wait_until

NewCoupon = Callable[..., int]
Bearer = Callable[[str], dict[str, str]]
OWN = {"switches", "gauges"}


@pytest.fixture
def services(config: Settings) -> Iterator[Services]:
    made = compose(config)
    yield made
    made.close()


def own_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name in OWN}


def started_by(action: Callable[[], object]) -> set[threading.Thread]:
    before = own_threads()
    action()
    return own_threads() - before


def test_composing_connects_nowhere_and_starts_no_thread(environ: dict[str, str]) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    config = settings.load(
        {**environ, "DATABASE_URL": f"postgresql://{nowhere}/none", "REDIS_URL": f"redis://{nowhere}/0"}
    )
    assert started_by(lambda: compose(config)) == set()


def test_starting_twice_starts_once(services: Services) -> None:
    assert {thread.name for thread in started_by(services.start)} == OWN
    assert started_by(services.start) == set()


def test_100_threads_that_start_at_the_same_moment_start_once(services: Services) -> None:
    gate = threading.Barrier(100)

    def start() -> None:
        gate.wait()
        services.start()

    callers = [threading.Thread(target=start) for _ in range(100)]

    def all_together() -> None:
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()

    assert len(started_by(all_together)) == len(OWN)


def test_a_start_that_waits_knows_what_operators_have_decided_and_has_full_pools(
    services: Services, pool: Pool
) -> None:
    switches.set_value(pool, switches.ISSUE_BREAKER, "open")
    services.start(wait_s=20)
    assert services.breaker.forced == "open"
    for one in (services.issue_pool, services.read_pool):  # the third serves the thread that reads the switches
        assert one.stats()["pool_available"] == one.stats()["pool_max"]


def test_closing_ends_the_threads_and_the_pools(services: Services) -> None:
    started = started_by(lambda: services.start(wait_s=20))
    services.close()
    assert not any(thread.is_alive() for thread in started)
    with pytest.raises(Unavailable):
        services.read_pool.fetch_one("SELECT 1")


def test_the_first_request_starts_them_and_the_operator_is_obeyed(
    app: Flask, pool: Pool, new_coupon: NewCoupon, bearer: Bearer
) -> None:
    client, coupon_id = app.test_client(), new_coupon(total=10_000)
    path = f"/api/v1/coupons/{coupon_id}/issue"
    assert not app.extensions[EXTENSION]._lifecycle.started
    assert client.post(path, headers=bearer("kim")).status_code == 201
    switches.set_value(pool, switches.ISSUE_BREAKER, "open")
    users = iter(range(10_000))
    wait_until(
        lambda: client.post(path, headers=bearer(f"user-{next(users)}")).status_code == 503,
        timeout_s=20,
        what="the forced circuit refuses",
    )


def test_flask_run_obeys_the_operator_as_gunicorn_does(
    tmp_path: Path, environ: dict[str, str], pool: Pool, new_coupon: NewCoupon, token_of: Callable[[str], str]
) -> None:
    port, path, log = free_port(), f"/api/v1/coupons/{new_coupon(total=10_000)}/issue", tmp_path / "flask.log"
    command = [sys.executable, "-m", "flask", "--app", "wsgi", "run", "--port", str(port)]
    users = iter(range(10_000))

    def status() -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            return send(connection, "POST", path, token=token_of(f"user-{next(users)}")).status
        except OSError:
            return 0
        finally:
            connection.close()

    with open(log, "wb") as output:
        server = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=output, stderr=output)
    try:
        wait_until(lambda: status() == 201, timeout_s=30, what="it issues")
        switches.set_value(pool, switches.ISSUE_BREAKER, "open")
        wait_until(lambda: status() == 503, timeout_s=20, what="the forced circuit refuses")
        assert "switch breaker.issue: not set → open" in log.read_text()
    finally:
        end(server)
