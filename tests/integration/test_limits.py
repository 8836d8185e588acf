"""Rate limits: all or none counted, exact across processes, and issuing goes on without Redis."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from flask import Flask, request
from flask_limiter import Limiter
from redis import Redis

from couponapp.errors import TooManyRequests
from couponapp.guards.limits import RateLimits, Rates
from couponapp.local.postgres import free_port
from couponapp.local.valkey import EmbeddedValkey
from tests.servers import wait_until

MANY = "1000000/minute"


class Process:
    """The limits as one process has them."""

    def __init__(self, redis_url: str, rates: Rates, *, processes: int = 1) -> None:
        self.app = Flask("limits")
        self.rates = rates
        self.limits = RateLimits(self.app, redis_url, scope="test", rates=lambda: self.rates, processes=processes)
        self.app.add_url_rule("/<user>", view_func=self._view)

    def _view(self, user: str) -> tuple[str, int, dict[str, str]]:
        try:
            self.limits.check(user)
        except TooManyRequests as refusal:
            return "refused", 429, {"Retry-After": str(refusal.retry_after_s)}
        return "passed", 200, {}

    def ask(self, user: str) -> int:
        return self.app.test_client().get(f"/{user}").status_code


@pytest.fixture
def redis(redis_url: str) -> Redis:
    return Redis.from_url(redis_url)


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    """A server that may be frozen and ended."""
    server = EmbeddedValkey(tmp_path, password="test", port=free_port())
    server.start(tmp_path)
    yield server
    server.end()


def test_the_limit_is_exact_with_many_threads_in_several_processes(redis_url: str) -> None:
    processes = [Process(redis_url, Rates("50/minute", MANY)) for _ in range(3)]
    with ThreadPoolExecutor(16) as executor:
        statuses = Counter(executor.map(lambda n: processes[n % 3].ask("kim"), range(150)))
    assert statuses == {200: 50, 429: 100}


def test_a_user_over_his_own_limit_uses_up_nobody_elses(redis_url: str) -> None:
    process = Process(redis_url, Rates("2/minute", "4/minute"))
    assert [process.ask("kim") for _ in range(20)] == [200, 200] + [429] * 18
    assert [process.ask("lee"), process.ask("lee")] == [200, 200]
    assert process.ask("park") == 429  # now the limit of all is used up, by those who passed


def test_the_stock_strategy_lets_one_user_use_up_the_limit_of_all(redis_url: str) -> None:
    # The negative control: why there is a strategy of our own.
    app = Flask("stock")
    limiter = Limiter(key_func=lambda: "kim", storage_uri=redis_url, app=app, fail_on_first_breach=False)

    @app.get("/<user>")
    @limiter.shared_limit("4/minute", scope="all", key_func=lambda: "all")
    @limiter.limit("2/minute", key_func=lambda: request.path)
    def view(user: str) -> str:
        return user

    client = app.test_client()
    assert [client.get("/kim").status_code for _ in range(5)][:2] == [200, 200]
    assert client.get("/lee").status_code == 429


def test_the_process_limit_is_not_used_up_by_those_who_are_refused_elsewhere(redis_url: str) -> None:
    process = Process(redis_url, Rates("1/minute", MANY, "2/minute"))
    assert [process.ask("kim") for _ in range(5)] == [200, 429, 429, 429, 429]
    assert [process.ask("lee"), process.ask("park")] == [200, 429]


def test_all_limits_cost_one_round_trip(redis_url: str, redis: Redis) -> None:
    process = Process(redis_url, Rates(MANY, MANY))
    process.ask("kim")  # loads the script
    before = redis.info("commandstats")
    assert process.ask("kim") == 200
    after = redis.info("commandstats")
    called = {
        name: stats["calls"] - before.get(name, {"calls": 0})["calls"]
        for name, stats in after.items()
        if stats["calls"] != before.get(name, {"calls": 0})["calls"]
    }
    sent_by_the_script = {"cmdstat_get", "cmdstat_incr", "cmdstat_pttl", "cmdstat_pexpire"}
    assert {name: n for name, n in called.items() if name not in sent_by_the_script | {"cmdstat_info"}} == {
        "cmdstat_evalsha": 1
    }


def test_a_flushed_redis_counts_anew_without_an_error(redis_url: str, redis: Redis) -> None:
    process = Process(redis_url, Rates("1/minute", MANY))
    assert [process.ask("kim"), process.ask("kim")] == [200, 429]
    redis.flushall()
    redis.script_flush()
    assert [process.ask("kim"), process.ask("kim")] == [200, 429]


def test_the_numbers_can_change_while_running(redis_url: str) -> None:
    process = Process(redis_url, Rates("1/minute", MANY))
    assert [process.ask("kim"), process.ask("kim")] == [200, 429]
    process.rates = Rates("3/minute", MANY)
    assert [process.ask("kim") for _ in range(4)] == [200, 200, 200, 429]


def test_the_headers_tell_how_one_stands(redis_url: str) -> None:
    client = Process(redis_url, Rates("2/minute", MANY)).app.test_client()
    first, _, third = client.get("/kim"), client.get("/kim"), client.get("/kim")
    assert (first.headers["RateLimit-Limit"], first.headers["RateLimit-Remaining"]) == ("2", "1")
    assert "Retry-After" not in first.headers
    assert third.headers["RateLimit-Remaining"] == "0"
    assert 1 <= int(third.headers["Retry-After"]) <= 60


def test_without_redis_each_process_takes_its_part_of_the_limit_of_all() -> None:
    nobody = f"redis://127.0.0.1:{free_port()}/0"
    process = Process(nobody, Rates("1/minute", "8/minute"), processes=4)
    assert [process.ask(f"user-{n}") for n in range(4)] == [200, 200, 429, 429]
    assert process.ask("user-0") == 429


def test_50_threads_at_the_moment_redis_freezes_get_no_error_and_redis_is_used_again(
    valkey: EmbeddedValkey,
) -> None:
    process = Process(valkey.url, Rates(MANY, MANY))
    assert process.ask("kim") == 200
    assert valkey.child is not None
    valkey.child.process.send_signal(signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(50) as executor:
            statuses = set(executor.map(lambda n: process.ask(f"user-{n}"), range(200)))
        assert statuses == {200}
    finally:
        valkey.child.process.send_signal(signal.SIGCONT)
    redis = Redis.from_url(valkey.url)
    redis.flushall()
    wait_until(lambda: process.ask("lee") == 200 and redis.keys("*"), timeout_s=60, what="Redis counts again")


def test_a_key_ends_with_its_window(redis_url: str, redis: Redis) -> None:
    Process(redis_url, Rates("5/minute", "5/minute")).ask("kim")
    left_s = [redis.ttl(key) for key in redis.keys("*")]
    assert len(left_s) == 2
    assert all(0 < left <= 60 for left in left_s)
