"""What PostgreSQL and Redis do to attempts when they break, in short; `make faults` has it all, under load."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from statistics import median

import pytest

from loadtest.driver.http_client import HttpConnection, request_bytes
from tests.support.breakable import Site, impatient_site
from tests.support.crowd import crowd, out_of_bounds, pressed, wait_until_it_issues
from tests.support.servers import Web, running_web

Fault = Callable[[Site], AbstractContextManager[None]]

CROWD = 32
# A client of an application without bounds would wait longer; this is enough to see it.
ENOUGH_S = 1.6
READS = 7
# The promise is kept by 99 of 100 in `make faults`; here by half of them, whatever else the machine does.
READ_S = 0.1


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with impatient_site(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture(scope="module")
def guarded(site: Site) -> Iterator[Web]:
    with running_web(site.directory, site.environ) as web:
        yield web


@pytest.fixture
def web(guarded: Web, site: Site) -> Iterator[Web]:
    """A web server that issues before the fault, and by itself again after it, with nothing lost."""
    wait_until_it_issues(guarded, site)
    yield guarded
    wait_until_it_issues(guarded, site)
    assert site.broken_invariants() == []


def without(site: Site, guard: str, **environ: str) -> AbstractContextManager[Web]:
    """A web server with one guard taken away."""
    return running_web(
        site.directory,
        {**site.environ, "WITHOUT": guard, **environ},
        processes=1,
        app="tests.support.wsgi_unguarded:app",
    )


def attempts_are_in_bounds(web: Web, site: Site, fault: Fault, *statuses: int, timeout_s: float = 30.0) -> list[str]:
    """What is wrong with the answers to a crowd that meets a fault."""
    with fault(site):
        return out_of_bounds(crowd(web, [site.attempt() for _ in range(CROWD)], timeout_s=timeout_s), *statuses)


@pytest.mark.parametrize("fault", [Site.stock_locked, Site.stock_behind_ddl, Site.postgres_frozen])
def test_while_postgresql_hangs_everybody_is_refused_in_time(web: Web, site: Site, fault: Fault) -> None:
    assert attempts_are_in_bounds(web, site, fault, 503) == []


def test_after_all_connections_were_cut_nobody_gets_an_error_of_ours(web: Web, site: Site) -> None:
    assert attempts_are_in_bounds(web, site, Site.connections_cut, 201, 503) == []


def test_while_redis_is_frozen_issuing_goes_on(web: Web, site: Site) -> None:
    assert attempts_are_in_bounds(web, site, Site.redis_frozen, 201, 503) == []
    with site.redis_frozen():
        wait_until_it_issues(web, site)


def test_without_bounds_the_same_crowd_waits(site: Site) -> None:
    with without(site, "bounds") as web:
        for fault in (Site.stock_locked, Site.postgres_frozen):
            wait_until_it_issues(web, site)
            assert attempts_are_in_bounds(web, site, fault, 503, timeout_s=ENOUGH_S) != []


def test_with_redis_time_outs_of_five_seconds_the_same_crowd_waits(site: Site) -> None:
    with without(site, "redis time-outs") as web:
        wait_until_it_issues(web, site)
        assert attempts_are_in_bounds(web, site, Site.redis_frozen, 201, 503, timeout_s=ENOUGH_S) != []


def reads_are_alive(web: Web, site: Site, fault: Fault) -> list[str]:
    """What is wrong with look-ups and «my coupons» while issuing is blocked."""
    requests = {
        "look-up": request_bytes("GET", f"/api/v1/coupons/{site.coupon_id}"),
        "my coupons": request_bytes("GET", "/api/v1/me/coupons", site.token("kim")),
    }
    wrong = []
    with fault(site), pressed(web, site, clients=16):
        site.wait_until_attempts_wait(1)
        connection = HttpConnection(web.port)
        for kind, request in requests.items():
            took_s = []
            for _ in range(READS):
                began_s = time.monotonic()
                reply = connection.exchange(request)
                took_s.append(time.monotonic() - began_s)
                wrong += [f"{kind}: {reply.status} {reply.code}"] if reply.status != 200 else []
            wrong += [f"{kind}: {median(took_s):.2f} s"] if median(took_s) > READ_S else []
        connection.close()
    return wrong


@pytest.mark.parametrize("fault", [Site.stock_locked, Site.stock_behind_ddl])
def test_while_issuing_is_blocked_look_ups_and_my_coupons_are_alive(web: Web, site: Site, fault: Fault) -> None:
    assert reads_are_alive(web, site, fault) == []


def test_without_a_pool_of_their_own_they_are_not(site: Site) -> None:
    with without(site, "pools", COUPON_POOL_ISSUE="1") as web:
        wait_until_it_issues(web, site)
        assert reads_are_alive(web, site, Site.stock_locked) != []
