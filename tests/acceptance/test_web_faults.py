"""Web processes that are killed, replaced, asked to end, or out of descriptors; in short, as in `make faults`."""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack

import psutil
import pytest

from loadtest.driver.http_client import HOST, request_bytes
from tests.support.breakable import Site, breakable_site
from tests.support.crowd import Timed, ask, in_flight, out_of_bounds, pressed, wait_until_it_issues
from tests.support.servers import Web, running_web, wait_until

IN_FLIGHT = 4
# As many connections, and far more time than a test needs to reach the moment at which what waits is let go.
PATIENT = {"COUPON_DEADLINE_MS": "20000", "COUPON_POOL_ISSUE": "4"}
# A process needs some hundred files itself.
FILES = 170
TIMEOUT_S = 30.0
# An answer that comes at all comes sooner.
ENOUGH_S = 3.0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with breakable_site(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture(scope="module")
def shared(site: Site) -> Iterator[Web]:
    with running_web(site.directory, {**site.environ, **PATIENT}) as web:
        yield web


@pytest.fixture
def web(shared: Web, site: Site) -> Iterator[Web]:
    """Two processes that issue before the fault, and two by themselves again after it, with nothing lost."""
    wait_until_it_issues(shared, site)
    yield shared
    wait_until(lambda: len(web_processes(shared)) == 2, timeout_s=TIMEOUT_S, what="two processes are there")
    wait_until_it_issues(shared, site)
    assert site.broken_invariants() == []


def web_processes(web: Web) -> set[psutil.Process]:
    return set(psutil.Process(web.process.pid).children())


def statuses(answers: list[Future[Timed]]) -> set[int]:
    return {answer.result(TIMEOUT_S).reply.status for answer in answers}


def kill_all(web: Web) -> None:
    for process in web_processes(web):
        process.kill()


def test_a_killed_process_is_replaced_while_the_other_goes_on(web: Web, site: Site) -> None:
    before = web_processes(web)
    with pressed(web, site, clients=8):
        next(iter(before)).kill()
        wait_until(lambda: len(web_processes(web) - before) == 1, timeout_s=TIMEOUT_S, what="another one is there")
        wait_until_it_issues(web, site)


def test_a_reload_loses_no_answer(web: Web, site: Site) -> None:
    before = web_processes(web)
    with in_flight(web, site, IN_FLIGHT) as answers:
        os.kill(web.process.pid, signal.SIGHUP)
        wait_until(lambda: len(web_processes(web) - before) == 2, timeout_s=TIMEOUT_S, what="new ones are there")
    assert statuses(answers) == {201}
    wait_until(lambda: not web_processes(web) & before, timeout_s=TIMEOUT_S, what="the old ones are gone")


def test_processes_that_are_killed_instead_lose_theirs(web: Web, site: Site) -> None:
    # The negative control of the test above.
    with in_flight(web, site, IN_FLIGHT) as answers:
        kill_all(web)
    assert 0 in statuses(answers)


def is_refused(web: Web) -> bool:
    try:
        socket.create_connection((HOST, web.port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, {201}), (signal.SIGQUIT, {0})])
def test_term_finishes_what_is_under_way_and_quit_does_not(
    site: Site, number: signal.Signals, expected: set[int]
) -> None:
    with running_web(site.directory, {**site.environ, **PATIENT}, processes=1) as web:
        with in_flight(web, site, IN_FLIGHT) as answers:
            web.process.send_signal(number)
            wait_until(lambda: is_refused(web), timeout_s=TIMEOUT_S, what="new connections are refused")
        assert statuses(answers) == expected
        assert web.process.wait(TIMEOUT_S) == 0


def newcomer_is_served(web: Web, site: Site, *, timeout_s: float = TIMEOUT_S) -> bool:
    """Beside more idle connections than the process may have files."""
    with ExitStack() as idle:
        for _ in range(2 * FILES):
            idle.enter_context(socket.create_connection((HOST, web.port), timeout=TIMEOUT_S))
        return ask(web, site.attempt(), timeout_s=timeout_s).reply.status == 201


def test_at_its_limit_of_files_a_process_serves_newcomers_and_does_not_die(site: Site) -> None:
    with running_web(site.directory, site.environ, processes=1, files=FILES) as web:
        before = web_processes(web)
        assert newcomer_is_served(web, site)
        assert "connections are in use" in web.log.read_text()
        wait_until_it_issues(web, site)
        assert web_processes(web) == before


def test_the_stock_worker_leaves_newcomers_waiting(site: Site) -> None:
    # The negative control of the test above.
    stock = ("--worker-class", "gevent", "--worker-connections", "1000")
    with running_web(site.directory, site.environ, processes=1, files=FILES, arguments=stock) as web:
        assert not newcomer_is_served(web, site, timeout_s=ENOUGH_S)
        assert os.strerror(errno.EMFILE) in web.log.read_text()


def test_a_process_that_starts_while_postgresql_is_away_says_so_and_issues_when_it_is_back(site: Site) -> None:
    look_up = request_bytes("GET", f"/api/v1/coupons/{site.coupon_id}")
    with ExitStack() as stack:
        with site.postgres_away():
            web = stack.enter_context(running_web(site.directory, site.environ, processes=1, probe="/livez"))
            assert out_of_bounds([ask(web, site.attempt()), ask(web, look_up)], 503) == []
        wait_until_it_issues(web, site)


def test_processes_that_are_replaced_while_redis_is_frozen_issue_all_the_same(web: Web, site: Site) -> None:
    before = web_processes(web)
    with site.redis_frozen():
        kill_all(web)
        wait_until(lambda: len(web_processes(web) - before) == 2, timeout_s=TIMEOUT_S, what="new ones are there")
        wait_until_it_issues(web, site)
