"""Rate limits: all or none counted, exact across processes, and issuing goes on without Redis."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from flask import Flask, request
from flask_limiter import Limiter
from prometheus_client import REGISTRY
from redis import Redis

from couponapp.errors import TooManyRequests
from couponapp.guards import redis_counters
from couponapp.guards.hits import RateLimitStatus
from couponapp.guards.rate_limits import REDIS_TIMEOUT_S, FallbackCounters, LimitRates, RateLimits
from couponapp.guards.strategy import AllOrNone
from couponapp.local.postgres import free_port
from couponapp.local.valkey import EmbeddedValkey
from loadtest.testbed.tcp_proxy import TcpProxy
from tests.support.servers import wait_until

MANY = "1000000/minute"
# On a busy machine a healthy Redis may take longer than the service would wait for it.
PATIENT_S = 10.0


class Process:
    """The limits as one process has them."""

    def __init__(self, redis_url: str, rates: LimitRates, *, processes: int = 1, timeout_s: float = PATIENT_S) -> None:
        self.rates = rates
        counters = FallbackCounters(
            lambda s: Redis.from_url(redis_url, socket_timeout=s, socket_connect_timeout=s),
            processes=processes,
            timeout_s=timeout_s,
        )
        self._limits = RateLimits(AllOrNone(counters=counters), scope="test", rates=lambda: self.rates)

    def passes(self, user: str, address: str = "") -> bool:
        """Make one attempt of a user: it counts, or is refused."""
        try:
            self.hit(user, address)
        except TooManyRequests:
            return False
        return True

    def hit(self, user: str, address: str = "") -> RateLimitStatus:
        """Make one attempt, and return how it stands."""
        return self._limits.hit(user, address)


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    """A server that may be frozen and ended."""
    with EmbeddedValkey(tmp_path, password="test", port=free_port()).running(tmp_path) as server:
        yield server


def signal_to(server: EmbeddedValkey, number: signal.Signals) -> None:
    assert server.child is not None
    server.child.process.send_signal(number)


def counts_in_redis() -> bool:
    return REGISTRY.get_sample_value("coupon_limits_shared_processes", {"limits": "limits"}) == 1


def test_the_limit_is_exact_with_many_threads_in_several_processes(redis_url: str) -> None:
    processes = [Process(redis_url, LimitRates("50/minute", MANY)) for _ in range(3)]
    with ThreadPoolExecutor(32) as executor:
        passed = list(executor.map(lambda n: processes[n % 3].passes("kim"), range(300)))
    assert passed.count(True) == 50


def test_a_user_over_his_own_limit_uses_up_nobody_elses(redis_url: str) -> None:
    process = Process(redis_url, LimitRates("2/minute", "4/minute"))
    assert [process.passes("kim") for _ in range(20)] == [True, True] + [False] * 18
    assert [process.passes("lee"), process.passes("lee")] == [True, True]
    assert not process.passes("park")  # now the limit of all is used up, by those who passed


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


def test_many_requests_of_one_moment_are_judged_one_after_the_other(redis_url: str, redis: Redis) -> None:
    # What comes together shares round trips; within one of them nobody passes twice.
    process = Process(redis_url, LimitRates("1/minute", "20/minute"))
    process.passes("the first one loads the script")
    redis.flushdb()
    before = redis.info("commandstats")["cmdstat_evalsha"]["calls"]
    with ThreadPoolExecutor(100) as executor:
        passed = list(executor.map(lambda n: process.passes(f"user-{n % 50}"), range(400)))
    assert passed.count(True) == 20
    assert redis.info("commandstats")["cmdstat_evalsha"]["calls"] - before <= 400


def test_all_limits_cost_one_round_trip(redis_url: str, redis: Redis) -> None:
    process = Process(redis_url, LimitRates(MANY, MANY, address_rate=MANY))
    process.passes("kim")  # loads the script
    before = redis.info("commandstats")
    assert process.passes("kim")
    after = redis.info("commandstats")
    called = {
        name: stats["calls"] - before.get(name, {"calls": 0})["calls"]
        for name, stats in after.items()
        if stats["calls"] != before.get(name, {"calls": 0})["calls"]
    }
    sent_by_the_script = {"cmdstat_get", "cmdstat_incrby", "cmdstat_pttl", "cmdstat_pexpire"}
    assert {name: n for name, n in called.items() if name not in sent_by_the_script | {"cmdstat_info"}} == {
        "cmdstat_evalsha": 1
    }


def test_a_flushed_redis_counts_anew_without_an_error(redis_url: str, redis: Redis) -> None:
    process = Process(redis_url, LimitRates("1/minute", MANY))
    assert [process.passes("kim"), process.passes("kim")] == [True, False]
    redis.flushall()
    redis.script_flush()
    assert [process.passes("kim"), process.passes("kim")] == [True, False]
    assert redis.keys("*")


def test_the_numbers_can_change_while_running(redis_url: str) -> None:
    process = Process(redis_url, LimitRates("1/minute", MANY))
    assert [process.passes("kim"), process.passes("kim")] == [True, False]
    process.rates = LimitRates("3/minute", MANY)
    assert [process.passes("kim") for _ in range(4)] == [True, True, True, False]


def test_50_threads_at_the_moment_redis_freezes_get_no_error_and_redis_is_used_again(
    valkey: EmbeddedValkey, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, redis_counters.__name__)
    process = Process(valkey.url, LimitRates(MANY, MANY), timeout_s=REDIS_TIMEOUT_S)
    wait_until(lambda: process.passes("kim") and counts_in_redis(), timeout_s=30, what="Redis counts")
    caplog.clear()
    signal_to(valkey, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(50) as executor:
            assert all(executor.map(lambda n: process.passes(f"user-{n}"), range(200)))
        wait_until(lambda: not counts_in_redis(), timeout_s=10, what="the metric tells it")
    finally:
        signal_to(valkey, signal.SIGCONT)
    redis = Redis.from_url(valkey.url)
    redis.flushall()
    wait_until(lambda: process.passes("lee") and redis.keys("*lee*"), timeout_s=60, what="Redis counts again")
    assert counts_in_redis()
    told = [record.message for record in caplog.records if record.name == redis_counters.__name__]
    assert ["does not answer" in told[0], "answers again" in told[1]] == [True, True]
    assert len(told) == 2


def test_who_asks_while_redis_is_known_to_be_away_does_not_wait_for_it(valkey: EmbeddedValkey) -> None:
    # The service would wait 0.05 s; here each wait is so long that one more of them would show.
    process = Process(valkey.url, LimitRates(MANY, MANY), timeout_s=2.0)
    assert process.passes("kim")
    signal_to(valkey, signal.SIGSTOP)
    try:
        wait_until(lambda: process.passes("finds out") and not counts_in_redis(), timeout_s=30, what="it is known")
        asked = ThreadPoolExecutor(1).submit(lambda: [process.passes(f"user-{n}") for n in range(300)])
        assert all(asked.result(20))  # 300 waits would take ten minutes
    finally:
        signal_to(valkey, signal.SIGCONT)


def test_a_redis_that_answers_slowly_is_left_alone_until_it_is_quick(valkey: EmbeddedValkey) -> None:
    with closing(TcpProxy(valkey.url)) as relay:
        process = Process(relay.url, LimitRates(MANY, MANY))
        assert process.passes("kim")
        relay.delay_s = 0.2  # within the patience of this test, and so never a time-out
        for number in range(redis_counters.SLOW_IN_A_ROW):
            assert process.passes(f"user-{number}")
        wait_until(lambda: not counts_in_redis(), timeout_s=10, what="slow is as good as away")
        relay.delay_s = 0.0
        wait_until(counts_in_redis, timeout_s=30, what="quick again")


def test_a_key_ends_with_its_window(redis_url: str, redis: Redis) -> None:
    Process(redis_url, LimitRates("5/minute", "5/minute")).passes("kim")
    left_s = [redis.ttl(key) for key in redis.keys("*")]
    assert len(left_s) == 2
    assert all(0 < left <= 60 for left in left_s)
