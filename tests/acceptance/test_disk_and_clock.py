"""PostgreSQL's disk is full or stalls, a clock is an hour off; in short, as in `make faults`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import psycopg
import pytest

from couponapp.auth import tokens
from couponapp.config import settings
from couponapp.errors import Unavailable
from couponapp.issuing.statement import issue
from couponapp.local.postgres import EmbeddedPostgres
from couponapp.operating.verify import verify
from couponapp.planning import coupons
from couponapp.storage import migrations
from couponapp.storage.pool import Pool, Timeouts
from loadtest.driver.http_client import Reply, request_bytes
from loadtest.testbed import preload
from loadtest.testbed.preload import Control
from tests.support.breakable import Site, impatient_site
from tests.support.crowd import ask, crowd, out_of_bounds, wait_until_it_issues
from tests.support.servers import Web, own_postgres, running_web, wait_until

pytestmark = pytest.mark.skipif(bool(preload.missing()) and not os.environ.get("CI"), reason=preload.missing())

CROWD = 32
TIMEOUT_S = 30.0
HOUR_S = 3600
# A client of an application without bounds would wait longer; this is enough to see it.
ENOUGH_S = 1.6
# Longer than any attempt may take, and than the tests take.
STALL_S = 60.0
USERS = [f"user-{number}" for number in range(10)]
PAGE = {"Accept": "text/html"}
FORM = {**PAGE, "Content-Type": "application/x-www-form-urlencoded"}


@dataclass(frozen=True)
class Stand:
    """Servers of this module's own, and what their disk and clocks are to be."""

    site: Site
    web: Web
    postgres: Control
    clock_of_web: Control

    def get(self, path: str, token: str = "") -> Reply:
        return ask(self.web, request_bytes("GET", path, token)).reply

    def attempts(self) -> list[str]:
        """What is wrong with the answers to a crowd that may be refused."""
        return out_of_bounds(crowd(self.web, [self.site.attempt() for _ in range(CROWD)]), 201, 503)

    def refuses(self) -> bool:
        return ask(self.web, self.site.attempt()).reply.status == 503


@pytest.fixture(scope="module")
def all_of_it(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    directory, of_web = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("web")
    with impatient_site(directory) as site:
        postgres, clock_of_web = Control(directory, disk=site.postgres.data), Control(of_web, disk=of_web)
        postgres.take_over(site.postgres, directory)
        with running_web(directory, {**site.environ, **clock_of_web.environ}) as web:
            yield Stand(site, web, postgres, clock_of_web)


@pytest.fixture
def stand(all_of_it: Stand) -> Iterator[Stand]:
    """Issues before the fault, and by itself again after it, with nothing lost."""
    wait_until_it_issues(all_of_it.web, all_of_it.site)
    yield all_of_it
    all_of_it.postgres.mend_disk()
    all_of_it.postgres.set_clock(0)
    all_of_it.clock_of_web.set_clock(0)
    wait_until_it_issues(all_of_it.web, all_of_it.site)
    assert all_of_it.site.broken_invariants() == []


@pytest.mark.parametrize("spoil", [Control.fill_disk, lambda disk: disk.slow_disk(STALL_S)], ids=["full", "stalled"])
def test_while_the_disk_is_full_or_stalls_attempts_are_refused_in_time_and_reads_are_alive(
    stand: Stand, spoil: Callable[[Control], None]
) -> None:
    spoil(stand.postgres)
    wait_until(stand.refuses, timeout_s=TIMEOUT_S, what="there is no room in any page")
    assert stand.attempts() == []
    assert stand.refuses()
    assert stand.get(f"/api/v1/coupons/{stand.site.coupon_id}").status == 200
    assert stand.get("/api/v1/me/coupons", stand.site.token("kim")).status == 200


def test_without_bounds_the_same_crowd_waits_for_the_stalled_disk(stand: Stand) -> None:
    environ = {**stand.site.environ, "WITHOUT": "bounds"}
    with running_web(stand.site.directory, environ, processes=1, app="tests.support.wsgi_unguarded:app") as web:
        wait_until_it_issues(web, stand.site)
        stand.postgres.slow_disk(STALL_S)
        wrong = out_of_bounds(crowd(web, [stand.site.attempt() for _ in range(CROWD)], timeout_s=ENOUGH_S), 201, 503)
        stand.postgres.mend_disk()
    assert wrong != []


def missing_when_the_log_found_no_room(
    directory: Path, make_pool: Callable[..., Pool], *, commits: Callable[[Pool], object] = lambda _: None
) -> set[str]:
    """Who was told «issued» before PostgreSQL went down for it, and has nothing when it is up again."""
    with own_postgres(directory) as server:
        disk = Control(directory, disk=server.data / "pg_wal")  # the log's own: the tables have room
        disk.take_over(server, directory)
        migrations.migrate(server.url)
        pool = make_pool(server.url, size=1, deadline_ms=3_000)
        coupon_id = coupons.create(pool, name="쿠폰", total=1000, opens_at=-60.0, closes_at=3600.0)
        commits(pool)
        told = {user for user in USERS[:1] if issue(pool, coupon_id, user).issuance}
        disk.fill_disk()
        told |= told_until_down(pool, coupon_id, server)
        disk.mend_disk()
        server.end()  # it may be there still, although it lets nobody in
        server.start(directory)
        pool = make_pool(server.url)
        missing = told - {row["user_id"] for row in pool.fetch_all("SELECT user_id FROM issuances")}
        for user in USERS:  # whoever has been told nothing asks again
            assert issue(pool, coupon_id, user, f"key-of-{user}").issuance
        assert verify(pool).violations == []
        return missing


def told_until_down(pool: Pool, coupon_id: int, server: EmbeddedPostgres) -> set[str]:
    told = set()
    with suppress(Unavailable):
        pool.execute("SELECT pg_switch_wal()")  # the log goes on in a new file
        for user in USERS[1:]:
            if issue(pool, coupon_id, user, f"key-of-{user}").issuance:
                told.add(user)
    wait_until(lambda: lets_nobody_in(server), timeout_s=TIMEOUT_S, what="PostgreSQL is down")
    return told


def lets_nobody_in(server: EmbeddedPostgres) -> bool:
    try:
        psycopg.connect(server.url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return True
    return False


def test_nobody_who_was_told_issued_is_missing_after_the_log_found_no_room(
    tmp_path: Path, make_pool: Callable[..., Pool]
) -> None:
    assert missing_when_the_log_found_no_room(tmp_path, make_pool) == set()


def test_without_waiting_for_the_disk_somebody_is_missing(tmp_path: Path, make_pool: Callable[..., Pool]) -> None:
    def do_not_wait(pool: Pool) -> None:
        pool.execute("SET synchronous_commit = off")  # our pools switch it on, whatever the server says

    assert missing_when_the_log_found_no_room(tmp_path, make_pool, commits=do_not_wait) != set()


def attempt_early(stand: Stand, coupon_id: int, user: str, *, ttl_s: int = 10 * HOUR_S) -> str:
    token = tokens.sign(settings.load(stand.site.environ), user, ttl_s=ttl_s)
    return ask(stand.web, request_bytes("POST", f"/api/v1/coupons/{coupon_id}/issue", token)).reply.code


def test_when_a_coupon_opens_only_the_clock_of_the_database_tells(stand: Stand) -> None:
    pool = Pool(stand.site.postgres.url, name="test", max_size=1, timeouts=Timeouts.within(20_000))
    coupon_id = coupons.create(pool, name="쿠폰", total=10, opens_at=HOUR_S / 2, closes_at=3 * HOUR_S)
    pool.close()
    stand.clock_of_web.set_clock(HOUR_S)
    assert attempt_early(stand, coupon_id, "kim", ttl_s=HOUR_S // 2) == "UNAUTHENTICATED"  # it has jumped
    assert attempt_early(stand, coupon_id, "kim") == "NOT_OPEN"
    stand.clock_of_web.set_clock(-HOUR_S)
    stand.postgres.set_clock(HOUR_S)
    wait_until(lambda: attempt_early(stand, coupon_id, "kim") == "ISSUED", timeout_s=TIMEOUT_S, what="it has opened")


def test_a_form_that_was_shown_by_a_clock_ahead_may_be_sent_to_one_that_is_right(stand: Stand) -> None:
    stand.clock_of_web.set_clock(HOUR_S)
    page = stand.web.request("GET", "/login", headers=PAGE)
    found = re.search(rb'name="csrf_token" value="([^"]+)"', page.body)
    assert found
    stand.clock_of_web.set_clock(0)
    headers = {**FORM, "Cookie": page.headers["Set-Cookie"].partition(";")[0]}
    body = urlencode({"csrf_token": found[1].decode(), "user": "kim"}).encode()
    assert stand.web.request("POST", "/login", headers=headers, body=body).status == 303
