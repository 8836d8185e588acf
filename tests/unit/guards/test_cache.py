"""The cache: one fetch at a time, stale values rather than waits. On a clock that the test moves."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from couponapp.errors import Unavailable
from couponapp.guards.cache import Cache
from tests.support.clock import Clock
from tests.support.servers import wait_until


class Source:
    """Counts how often it is read; can fail and can be held up."""

    def __init__(self) -> None:
        self.reads = 0
        self.fails = False
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, key: str) -> str:
        self.reads += 1
        value = f"{key}-{self.reads}"
        assert self.gate.wait(10)
        if self.fails:
            raise Unavailable()
        return value


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def cache(clock: Clock, source: Source) -> Cache[str, str]:
    # The waits are bounds that no test reaches unless it says so.
    return Cache(source, clock=clock, max_age_s=1.0, first_wait_s=10.0, stale_wait_s=10.0, max_entries=3)


def test_the_age_of_a_refresh_can_be_set(clock: Clock, source: Source) -> None:
    cache: Cache[str, str] = Cache(source, clock=clock, max_age_s=1.0, refresh_after_s=0.25)
    assert cache.get("a") == "a-1"
    clock.now_s += 0.24
    assert cache.get("a") == "a-1"
    assert source.reads == 1
    clock.now_s += 0.01
    assert cache.get("a") == "a-1"
    wait_until(lambda: cache.get("a") == "a-2", timeout_s=10, what="the new value")


def test_a_fresh_value_is_read_once(cache: Cache[str, str], source: Source) -> None:
    assert [cache.get("a"), cache.get("a")] == ["a-1", "a-1"]
    assert source.reads == 1


def test_no_value_is_older_than_its_age(cache: Cache[str, str], clock: Clock) -> None:
    cache.get("a")
    clock.now_s += 1.0
    assert cache.get("a") == "a-2"


def test_the_age_counts_from_before_the_read(cache: Cache[str, str], clock: Clock, source: Source) -> None:
    source.gate.clear()
    with ThreadPoolExecutor(1) as executor:
        reading = executor.submit(cache.get, "a")
        wait_until(lambda: source.reads == 1, timeout_s=5, what="the read has begun")
        clock.now_s += 0.9
        source.gate.set()
        assert reading.result(5) == "a-1"
    clock.now_s += 0.1
    assert cache.get("a") == "a-2"


def test_one_thread_refreshes_while_all_callers_get_the_cached_value(
    cache: Cache[str, str], clock: Clock, source: Source
) -> None:
    cache.get("a")
    clock.now_s += 0.6
    source.gate.clear()
    assert [cache.get("a") for _ in range(50)] == ["a-1"] * 50
    source.gate.set()
    wait_until(lambda: cache.get("a") == "a-2", timeout_s=5, what="the refresh has landed")
    assert source.reads == 2


def test_a_stale_value_is_returned_while_its_refresh_hangs(clock: Clock, source: Source) -> None:
    cache: Cache[str, str] = Cache(source, clock=clock, max_age_s=1.0, stale_wait_s=0.01)
    cache.get("a")
    clock.now_s += 100
    source.gate.clear()
    assert [cache.get("a") for _ in range(5)] == ["a-1"] * 5
    assert source.reads == 2
    source.gate.set()
    wait_until(lambda: cache.get("a") == "a-2", timeout_s=5, what="the refresh has landed")


def test_concurrent_callers_of_an_empty_cache_share_one_read(cache: Cache[str, str], source: Source) -> None:
    source.gate.clear()
    with ThreadPoolExecutor(20) as executor:
        crowd = [executor.submit(cache.get, "a") for _ in range(20)]
        wait_until(lambda: source.reads == 1, timeout_s=5, what="the read has begun")
        source.gate.set()
        assert {one.result(5) for one in crowd} == {"a-1"}
    assert source.reads == 1


def test_after_a_failed_refresh_the_stale_value_stays_and_a_later_one_succeeds(
    cache: Cache[str, str], clock: Clock, source: Source
) -> None:
    cache.get("a")
    source.fails = True
    clock.now_s += 5
    assert [cache.get("a") for _ in range(10)] == ["a-1"] * 10
    assert source.reads == 2
    source.fails = False
    clock.now_s += 0.5
    wait_until(lambda: cache.get("a") == "a-3", timeout_s=5, what="the refresh has landed")


def test_after_a_failed_refresh_no_caller_waits_for_the_next(
    cache: Cache[str, str], clock: Clock, source: Source
) -> None:
    cache.get("a")
    source.fails = True
    clock.now_s += 5
    cache.get("a")
    clock.now_s += 5
    source.gate.clear()  # hangs now: whoever waited would do so for ten seconds
    assert [cache.get("a") for _ in range(10)] == ["a-1"] * 10
    assert not source.gate.is_set()
    source.gate.set()


def test_a_failure_with_nothing_cached_reaches_all_waiting_callers(cache: Cache[str, str], source: Source) -> None:
    source.fails = True
    source.gate.clear()
    with ThreadPoolExecutor(20) as executor:
        crowd = [executor.submit(cache.get, "a") for _ in range(20)]
        wait_until(lambda: source.reads == 1, timeout_s=5, what="the read has begun")
        source.gate.set()
        assert {type(one.exception(5)) for one in crowd} == {Unavailable}


def test_the_wait_for_a_first_read_is_bounded(clock: Clock, source: Source) -> None:
    cache: Cache[str, str] = Cache(source, clock=clock, max_age_s=1.0, first_wait_s=0.01)
    source.gate.clear()
    for _ in range(3):
        with pytest.raises(Unavailable):
            cache.get("a")
    source.gate.set()
    wait_until(lambda: not cache._fetches, timeout_s=5, what="the read has landed")
    assert cache.get("a") == "a-1"
    assert source.reads == 1


def test_the_least_recently_used_entries_are_dropped_first(cache: Cache[str, str], source: Source) -> None:
    for key in ("a", "b", "c", "a", "d"):
        cache.get(key)
    assert source.reads == 4
    cache.get("a")
    assert source.reads == 4
    cache.get("b")
    assert source.reads == 5
