"""A pool recovers by itself: from a server that starts late, a cut connection, a server that became read-only."""

from __future__ import annotations

import select
from collections.abc import Callable
from pathlib import Path

import pytest

from couponapp.errors import Unavailable
from couponapp.storage.pool import Pool
from loadtest.testbed.postgres import new_postgres
from tests.support.servers import wait_until


def test_a_pool_whose_warm_up_failed_works_once_the_server_is_up(
    tmp_path: Path, make_pool: Callable[..., Pool]
) -> None:
    server = new_postgres(tmp_path / "postgres", "fsync=off")
    pool = make_pool(server.url, deadline_ms=500)
    assert not pool.warm_up(0.2)
    assert not pool.answers()
    with server.running(tmp_path):
        wait_until(pool.answers, timeout_s=20, what="the pool answers")


def test_a_connection_that_was_cut_after_its_answer_is_not_reused(
    make_pool: Callable[..., Pool], database_url: str
) -> None:
    pool = make_pool(database_url, size=1)
    assert pool.warm_up(20)
    with pool.connection(timeout_s=0.5) as connection:
        connection.execute("SELECT 1")
        assert select.select([connection.fileno()], [], [], 20)[0]  # the cut
    assert pool.fetch_one("SELECT 1 AS one") == {"one": 1}


def test_connections_to_a_server_that_has_become_read_only_are_replaced(
    make_pool: Callable[..., Pool], database_url: str
) -> None:
    pool = make_pool(database_url, size=3)
    assert pool.warm_up(20)
    held = [pool.connection() for _ in range(3)]
    for one in held:
        one.__enter__().execute("SET default_transaction_read_only = on")
    for one in held:
        one.__exit__(None, None, None)
    create = "CREATE TABLE IF NOT EXISTS written (n int)"
    with pytest.raises(Unavailable):
        pool.execute(create)

    def writes() -> bool:
        try:
            pool.execute(create)
        except Unavailable:
            return False
        return True

    wait_until(writes, timeout_s=10, what="a new connection writes")
    assert all(writes() for _ in range(10))
