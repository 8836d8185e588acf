"""Counters against an obviously right one: sequences of requests and times, in memory and in Redis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from limits import RateLimitItemPerMinute
from redis import Redis

from couponapp.guards.hits import Hit, RateLimitStatus
from couponapp.guards.memory_counters import MemoryCounters
from couponapp.guards.redis_counters import RedisCounters
from tests.support.clock import Clock
from tests.support.counters import USERS, WINDOW_S, Reference, limits_of, reported, steps

PATIENT_S = 10.0


@pytest.mark.parametrize("where", ["memory", "Redis"])
def test_a_look_at_a_limit_counts_nothing_and_sees_when_it_is_used_up(redis_url: str, where: str) -> None:
    counters = (
        MemoryCounters(1)
        if where == "memory"
        else RedisCounters(lambda: Redis.from_url(redis_url), timeout_s=PATIENT_S)
    )
    one = [Hit("kim", RateLimitItemPerMinute(1))]
    looks = [counters.count(one, 0) for _ in range(3)]
    assert [look and reported(look) for look in looks] == [(False, 1)] * 3
    assert [(status := counters.count(one)) and status.refused for _ in range(2)] == [False, True]
    after = counters.count(one, 0)
    assert after is not None
    assert (after.refused, after.remaining) == (True, 0)
    assert 1 <= after.reset_s <= WINDOW_S


@pytest.mark.parametrize("seed", range(5))
def test_in_redis_every_status_is_that_of_the_reference(redis_url: str, seed: int) -> None:
    redis, clock = Redis.from_url(redis_url), Clock()
    counters = RedisCounters(lambda: Redis.from_url(redis_url), timeout_s=PATIENT_S)
    reference, ends_s = Reference(clock), dict[str, float]()
    for user, passed_s in steps(seed, 150):
        clock.move(passed_s)
        # Redis keeps its own time, so its keys end here as theirs would.
        for key in [key for key, end_s in ends_s.items() if end_s <= clock.now_s]:
            assert redis.delete(*redis.keys(f"*:{key}:*"))
            del ends_s[key]
        seen = counters.count(limits_of(user))
        assert seen is not None
        assert reported(seen) == reference.count(limits_of(user))
        if not seen.refused:
            for key in (user, "all"):
                ends_s.setdefault(key, clock.now_s + WINDOW_S)


@pytest.mark.parametrize("where", ["memory", "Redis"])
def test_32_threads_pass_exactly_as_many_as_the_limits_allow(redis_url: str, where: str) -> None:
    count: Callable[[Sequence[Hit]], RateLimitStatus | None] = (
        MemoryCounters(1).count
        if where == "memory"
        else RedisCounters(lambda: Redis.from_url(redis_url), timeout_s=PATIENT_S).count
    )

    def passes(number: int) -> str | None:
        user = USERS[number % len(USERS)]
        seen = count(limits_of(user, own=20, overall=90))
        assert seen is not None
        return None if seen.refused else user

    with ThreadPoolExecutor(32) as executor:
        passed = Counter(user for user in executor.map(passes, range(600)) if user)
    assert passed.total() == 90
    assert max(passed.values()) <= 20
