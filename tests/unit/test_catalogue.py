"""The cache in front of the coupons, on a clock that the test moves."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from couponapp.errors import Unavailable
from couponapp.issuing.catalogue import Cache, Coupon, Status
from tests.servers import wait_until


class Clock:
    """Monotonic seconds that pass when told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


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
    return Cache(source, clock=clock, max_age_s=1.0, max_wait_s=10.0, max_entries=3)


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


def test_one_refreshes_while_the_others_use_the_old_value(cache: Cache[str, str], clock: Clock, source: Source) -> None:
    cache.get("a")
    clock.now_s += 0.6
    source.gate.clear()
    with ThreadPoolExecutor(1) as executor:
        refreshing = executor.submit(cache.get, "a")
        wait_until(lambda: source.reads == 2, timeout_s=5, what="the refresh has begun")
        assert [cache.get("a") for _ in range(50)] == ["a-1"] * 50
        source.gate.set()
        assert refreshing.result(5) == "a-2"
    assert source.reads == 2


def test_a_crowd_that_meets_an_empty_cache_reads_once(cache: Cache[str, str], source: Source) -> None:
    source.gate.clear()
    with ThreadPoolExecutor(20) as executor:
        crowd = [executor.submit(cache.get, "a") for _ in range(20)]
        wait_until(lambda: source.reads == 1, timeout_s=5, what="the read has begun")
        source.gate.set()
        assert {one.result(5) for one in crowd} == {"a-1"}
    assert source.reads == 1


def test_a_failed_refresh_goes_on_serving_the_old_value_and_tries_again_later(
    cache: Cache[str, str], clock: Clock, source: Source
) -> None:
    cache.get("a")
    source.fails = True
    clock.now_s += 5
    assert [cache.get("a") for _ in range(10)] == ["a-1"] * 10
    assert source.reads == 2
    source.fails = False
    clock.now_s += 0.5
    assert cache.get("a") == "a-3"


def test_a_failure_with_nothing_cached_reaches_the_whole_crowd_at_once(cache: Cache[str, str], source: Source) -> None:
    source.fails = True
    source.gate.clear()
    with ThreadPoolExecutor(20) as executor:
        crowd = [executor.submit(cache.get, "a") for _ in range(20)]
        wait_until(lambda: source.reads == 1, timeout_s=5, what="the read has begun")
        source.gate.set()
        assert {type(one.exception(5)) for one in crowd} == {Unavailable}


def test_a_caller_does_not_wait_for_another_ones_read_without_a_bound(clock: Clock, source: Source) -> None:
    cache: Cache[str, str] = Cache(source, clock=clock, max_wait_s=0.01)
    source.gate.clear()
    with ThreadPoolExecutor(1) as executor:
        slow = executor.submit(cache.get, "a")
        wait_until(lambda: source.reads == 1, timeout_s=5, what="the read has begun")
        with pytest.raises(Unavailable):
            cache.get("a")
        source.gate.set()
        assert slow.result(5) == "a-1"


def test_the_least_recently_used_go_first(cache: Cache[str, str], source: Source) -> None:
    for key in ("a", "b", "c", "a", "d"):
        cache.get(key)
    assert source.reads == 4
    cache.get("a")
    assert source.reads == 4
    cache.get("b")
    assert source.reads == 5


def coupon(*, state: str = "open", remaining: int = 1) -> Coupon:
    opens_at = datetime(2026, 11, 23, 5, 0, tzinfo=UTC)
    return Coupon(
        id=1, name="쿠폰", total=1, remaining=remaining, opens_at=opens_at, closes_at=opens_at + timedelta(hours=1),
        valid_days=30, state=state, read_at=opens_at - timedelta(seconds=10), read_mono_s=100.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("mono_s", "state", "remaining", "expected"),
    [
        (109.9, "open", 1, Status.SCHEDULED),
        (110.0, "open", 1, Status.OPEN),
        (110.0, "open", 0, Status.SOLD_OUT),
        (110.0, "paused", 0, Status.PAUSED),
        (109.9, "paused", 1, Status.SCHEDULED),
        (109.9, "closed", 1, Status.CLOSED),
        (3709.9, "open", 1, Status.OPEN),
        (3710.0, "open", 1, Status.CLOSED),
    ],
)
def test_the_status_follows_the_databases_clock_between_two_reads(
    mono_s: float, state: str, remaining: int, expected: Status
) -> None:
    assert coupon(state=state, remaining=remaining).status(mono_s) is expected
