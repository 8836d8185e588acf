"""PgBouncer in transaction mode between the service and PostgreSQL, in short; `make faults` has it under load."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from statistics import median

import pytest

from couponapp.storage import migrations
from loadtest.driver.http_client import request_bytes
from loadtest.testbed.pgbouncer import RECOMMENDED, PgBouncer, prepare_role
from tests.support.breakable import DEADLINE_MS, Site, impatient_site
from tests.support.crowd import ask, crowd, out_of_bounds, pressed, wait_until_it_issues
from tests.support.pgbouncers import needs_pgbouncer, running_pgbouncer
from tests.support.servers import ROOT, Web, running_web, running_worker, wait_until

pytestmark = needs_pgbouncer

CROWD = 32
# Each connection runs each statement more often than the driver does before it prepares it.
ROUNDS = 40
TIMEOUT_S = 30.0
READS = 3
# The promise is kept by 99 of 100 in `make faults`; here by half of them, whatever else the machine does.
READ_S = 0.1
UNSENT = "SELECT 1 FROM outbox WHERE sent_at IS NULL LIMIT 1"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with impatient_site(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture(scope="module")
def between(site: Site) -> Iterator[PgBouncer]:
    prepare_role(site.postgres.url)
    with running_pgbouncer(site.directory, site.postgres.url) as pgbouncer:
        yield pgbouncer


@pytest.fixture(scope="module")
def behind(site: Site, between: PgBouncer) -> Iterator[Web]:
    with running_web(site.directory, {**site.environ, "DATABASE_URL": between.url}) as web:
        yield web


@pytest.fixture
def web(behind: Web, site: Site) -> Iterator[Web]:
    """A web server that issues before the fault, and by itself again after it, with nothing lost."""
    wait_until_it_issues(behind, site)
    yield behind
    wait_until_it_issues(behind, site)
    assert site.broken_invariants() == []


def statuses_of_everything(web: Web, site: Site) -> set[int]:
    """Of attempts, their repetitions, look-ups and «my coupons», one after the other, again and again."""
    look_up = request_bytes("GET", f"/api/v1/coupons/{site.coupon_id}")
    mine = request_bytes("GET", "/api/v1/me/coupons", site.token("kim"))
    attempts = [site.attempt() for _ in range(ROUNDS)]
    requests = [request for attempt in attempts for request in (attempt, attempt, look_up, mine)]
    return {ask(web, request).reply.status for request in requests}


def test_behind_pgbouncer_everything_is_answered(web: Web, site: Site) -> None:
    statuses = statuses_of_everything(web, site)
    assert statuses >= {200, 201, 409}
    assert 500 not in statuses


def test_a_driver_that_prepares_statements_nevertheless_fails(site: Site, between: PgBouncer) -> None:
    # The negative control of the test above.
    environ = {**site.environ, "DATABASE_URL": between.url, "WITHOUT": "look at sessions"}
    with running_web(site.directory, environ, app="tests.support.wsgi_unguarded:app", probe="/livez") as web:
        assert 500 in statuses_of_everything(web, site)


def test_worker_and_commands_work_behind_it_too(web: Web, site: Site, between: PgBouncer) -> None:
    environ = {**site.environ, "DATABASE_URL": between.url}
    command = [sys.executable, "-m", "flask", "--app", "wsgi", "coupons", "verify", "--json"]
    with running_worker(site.directory, environ), site.stranger() as db:
        wait_until(lambda: not db.execute(UNSENT).fetchone(), timeout_s=TIMEOUT_S, what="every holder is notified")
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=True)
    (coupon,) = json.loads(done.stdout)["coupons"]
    assert coupon["issued"] == coupon["notified"] > 0


def test_migrations_run_through_it_repeatedly(between: PgBouncer) -> None:
    assert [migrations.migrate(between.url) for _ in range(3)] == [[], [], []]


def test_while_it_is_paused_every_request_is_refused_in_time(web: Web, site: Site, between: PgBouncer) -> None:
    between.command("PAUSE")
    try:
        assert out_of_bounds(crowd(web, [site.attempt() for _ in range(CROWD)]), 503) == []
    finally:
        between.command("RESUME")


def test_while_it_is_down_every_request_is_refused_in_time(web: Web, site: Site, between: PgBouncer) -> None:
    between.kill()
    try:
        assert out_of_bounds(crowd(web, [site.attempt() for _ in range(CROWD)]), 503) == []
    finally:
        between.start()


def my_coupons_s(web: Web, site: Site) -> float:
    """How long «my coupons» takes, in seconds, when it comes just as an attempt has begun to wait for the stock."""
    mine = request_bytes("GET", "/api/v1/me/coupons", site.token("kim"))
    with site.stock_locked(), pressed(web, site, clients=8):
        site.wait_until_attempts_wait(1)
        return ask(web, mine).seconds


@pytest.mark.alone
def test_while_issuing_is_blocked_other_requests_get_a_connection_of_pgbouncer(web: Web, site: Site) -> None:
    assert median(my_coupons_s(web, site) for _ in range(READS)) <= READ_S


def test_with_no_more_connections_than_issuing_uses_they_do_not(site: Site) -> None:
    # The negative control of the test above.
    few = RECOMMENDED.replace("default_pool_size = 8", "default_pool_size = 1")
    with running_pgbouncer(site.directory / "few", site.postgres.url, settings=few) as between:
        environ = {**site.environ, "DATABASE_URL": between.url}
        with running_web(site.directory, environ, processes=1) as web:
            assert median(my_coupons_s(web, site) for _ in range(READS)) > READ_S


def test_missing_settings_of_the_role_are_logged_and_adding_them_needs_no_restart(site: Site) -> None:
    with running_pgbouncer(site.directory / "unprepared", site.postgres.url) as between:
        forget_settings(site)
        try:
            environ = {**site.environ, "DATABASE_URL": between.url}
            with running_web(site.directory, environ, processes=1, probe="/livez") as web:
                assert out_of_bounds(crowd(web, [site.attempt()]), 503) == []
                wait_until(
                    lambda: f"SET statement_timeout = {DEADLINE_MS * 8 // 10}" in web.log.read_text(),
                    timeout_s=TIMEOUT_S,
                    what="the log says what the role needs",
                )
                prepare_role(site.postgres.url)
                between.command("RECONNECT")
                wait_until_it_issues(web, site)
        finally:
            prepare_role(site.postgres.url)


def forget_settings(site: Site) -> None:
    with site.stranger() as db:
        db.execute("ALTER ROLE CURRENT_USER RESET ALL")
