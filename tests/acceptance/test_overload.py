"""A web process that cannot keep up refuses at once what waits too long, and newcomers get their turn."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from couponapp.auth import tokens
from couponapp.config import settings
from couponapp.planning import coupons
from couponapp.storage.pool import Pool
from loadtest.driver.generator import closed_loop
from loadtest.driver.http_client import HttpConnection, request_bytes
from tests.support.servers import Web, running_web, wait_until

# Far more than one process serves in a round of a millisecond.
CLIENTS = 64
SECONDS = 1.0
WHILE_IT_LASTS_S = 30.0


@contextmanager
def web_with(tmp_path: Path, environ: dict[str, str], **more: str) -> Iterator[Web]:
    """One process that loses its patience after the shortest deadline there is."""
    patient = {"COUPON_DEADLINE_MS": "100", "COUPON_LIMIT_GLOBAL": "1000000/minute", "COUPON_QUEUE_ISSUE": "10000"}
    with running_web(tmp_path, {**environ, **patient, **more}, processes=1) as web:
        yield web


@pytest.fixture
def attempts(pool: Pool, environ: dict[str, str]) -> list[bytes]:
    """One attempt of each of many users, with a piece for everybody."""
    number = coupons.create(pool, name="쿠폰", total=100_000, opens_at=-60.0, closes_at=3600.0)
    config = settings.load(environ)
    return [
        request_bytes("POST", f"/api/v1/coupons/{number}/issue", tokens.sign(config, f"user-{user}", ttl_s=600))
        for user in range(2_000)
    ]


def overloaded(web: Web) -> float:
    """How often a backlog was the cause of a 503."""
    text = web.request("GET", "/metrics").body.decode()
    found = re.search(r'coupon_unavailable_total\{cause="Overloaded"\} ([0-9.e+]+)', text)
    return float(found[1]) if found else 0.0


def test_a_standing_queue_is_refused_and_forgotten_when_it_has_gone(
    tmp_path: Path, environ: dict[str, str], attempts: list[bytes]
) -> None:
    with web_with(tmp_path, environ, COUPON_BACKLOG_MS="1") as web:
        _, _, statuses = closed_loop(web.port, attempts, clients=CLIENTS, seconds=SECONDS)
        assert statuses <= {201, 503, 409}
        assert overloaded(web) > 0
        assert "overload: more requests arrive" in web.log.read_text()
        connection = HttpConnection(web.port)
        wait_until(lambda: connection.exchange(attempts[-1]).status in (201, 409), timeout_s=30, what="it issues again")
        connection.close()


def test_without_the_guard_nobody_is_refused_for_having_waited(
    tmp_path: Path, environ: dict[str, str], attempts: list[bytes]
) -> None:
    with web_with(tmp_path, environ, COUPON_BACKLOG_MS="0") as web:
        closed_loop(web.port, attempts, clients=CLIENTS, seconds=SECONDS)
        assert overloaded(web) == 0


def test_what_needs_no_database_is_answered_all_the_same(
    tmp_path: Path, environ: dict[str, str], pool: Pool, attempts: list[bytes]
) -> None:
    not_open = coupons.create(pool, name="쿠폰", total=10, opens_at=3000.0, closes_at=3600.0)
    token = tokens.sign(settings.load(environ), "kim", ttl_s=600)
    early = request_bytes("POST", f"/api/v1/coupons/{not_open}/issue", token)
    look_up = request_bytes("GET", f"/api/v1/coupons/{not_open}")
    with web_with(tmp_path, environ, COUPON_BACKLOG_MS="1") as web:
        # Every other request costs time, so that the queue stands.
        among = [request for attempt in attempts for request in (attempt, early)]
        rounds = threading.Thread(
            target=closed_loop, args=(web.port, among), kwargs={"clients": CLIENTS, "seconds": SECONDS}
        )
        rounds.start()
        connection, seen = HttpConnection(web.port), set()
        while rounds.is_alive():
            seen |= {connection.exchange(early).code, connection.exchange(look_up).code}
        rounds.join()
        connection.close()
        assert overloaded(web) > 0
        assert seen == {"NOT_OPEN", "OK"}


def served_until_newcomers_are(web: Web, *, kept: int, newcomers: int) -> int:
    """How many requests of kept connections are served until so many new ones have had one answer each."""
    request, stop, done = request_bytes("GET", "/livez"), threading.Event(), threading.Event()
    served = [0] * kept

    def press(number: int) -> None:
        connection = HttpConnection(web.port)
        while not stop.is_set():
            connection.exchange(request)
            served[number] += not done.is_set()
        connection.close()

    def come() -> None:
        connection = HttpConnection(web.port, WHILE_IT_LASTS_S)
        assert connection.exchange(request).status == 200
        connection.close()

    pressing = [threading.Thread(target=press, args=(number,)) for number in range(kept)]
    coming = [threading.Thread(target=come) for _ in range(newcomers)]
    for thread in pressing:
        thread.start()
    wait_until(lambda: all(served), timeout_s=WHILE_IT_LASTS_S, what="all kept connections are served")
    before = sum(served)
    for thread in coming:
        thread.start()
    for thread in coming:
        thread.join()
    done.set()
    stop.set()
    for thread in pressing:
        thread.join()
    return sum(served) - before


def test_newcomers_get_their_turn_beside_connections_that_are_kept_busy(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    with running_web(tmp_path, environ, processes=1) as web:
        served = served_until_newcomers_are(web, kept=20, newcomers=40)
    # The negative control: it accepts one newcomer for each round of all kept connections, or fewer.
    with running_web(tmp_path, environ, processes=1, arguments=("--worker-class", "gevent")) as web:
        stock = served_until_newcomers_are(web, kept=20, newcomers=40)
    assert served < stock / 2
