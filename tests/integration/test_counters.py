"""Counters against an obviously right one: sequences of requests and times, in memory and in Redis."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from limits import RateLimitItem, RateLimitItemPerMinute
from redis import Redis

from couponapp.guards.hits import Hit, RateLimitStatus
from couponapp.guards.memory_counters import MemoryCounters, Window
from couponapp.guards.redis_counters import RedisCounters
from tests.support.clock import Clock

USERS = [f"user-{number}" for number in range(6)]
WINDOW_S = 60
PATIENT_S = 10.0


class Reference:
    """Remembers every hit and looks at all of them each time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began_s: dict[str, float] = {}
        self._hits: Counter[str] = Counter()

    def count(self, hits: Sequence[Hit]) -> tuple[bool, int]:
        for one in hits:
            if self._clock() - self._began_s.get(one.key, -WINDOW_S) >= WINDOW_S:
                self._hits[one.key] = 0
        for one in hits:
            if self._hits[one.key] >= one.limit.amount:
                return True, 0
        for one in hits:
            if not self._hits[one.key]:
                self._began_s[one.key] = self._clock()
            self._hits[one.key] += 1
        return False, hits[0].limit.amount - self._hits[hits[0].key]


def limits_of(user: str, *, own: int = 3, overall: int = 10) -> list[Hit]:
    return [Hit(user, RateLimitItemPerMinute(own)), Hit("all", RateLimitItemPerMinute(overall))]


def steps(seed: int, count: int) -> list[tuple[str, float]]:
    """Who asks, and how much time has passed before; borders of windows are met exactly."""
    chance = random.Random(seed)
    return [(chance.choice(USERS), chance.choice((0.0, 0.0, 0.0, 1.0, 7.5, 30.0, 60.0))) for _ in range(count)]


def reported(status: RateLimitStatus) -> tuple[bool, int]:
    return status.refused, 0 if status.refused else status.remaining


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


def differences(counters: MemoryCounters, clock: Clock, seed: int) -> int:
    """How many answers of a long sequence are not those of the reference."""
    reference, wrong = Reference(clock), 0
    for user, passed_s in steps(seed, 300):
        clock.move(passed_s)
        wrong += reported(counters.count(limits_of(user))) != reference.count(limits_of(user))
    return wrong


@pytest.mark.parametrize("seed", range(20))
def test_in_memory_every_status_is_that_of_the_reference(seed: int) -> None:
    clock = Clock()
    assert differences(MemoryCounters(1, clock=clock), clock, seed) == 0


class CountsAsItGoes(MemoryCounters):
    """Negative control: one limit after the other, each counted at once."""

    def count(self, hits: Sequence[Hit], cost: int = 1) -> RateLimitStatus:
        for one in hits:
            if (seen := super().count([one])).refused:
                return seen
        return super().count(hits, cost)


class ForgetsTooLate(MemoryCounters):
    """Negative control: at the very end of a window it still counts."""

    def _window(self, hit: Hit, now_s: float) -> Window:
        found = self._windows.get(hit.name)
        return found if found and found.ends_s == now_s else super()._window(hit, now_s)


@pytest.mark.parametrize("wrong", [CountsAsItGoes, ForgetsTooLate])
def test_the_reference_catches_wrong_counters(wrong: type[MemoryCounters]) -> None:
    clock = Clock()
    assert sum(differences(wrong(1, clock=clock), clock, seed) for seed in range(20)) > 0


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


def test_a_hit_can_be_given_back_but_a_count_never_falls_below_zero() -> None:
    clock = Clock()
    counters, one = MemoryCounters(1, clock=clock), Hit("kim", RateLimitItemPerMinute(1))
    counters.count([one])
    counters.give_back(one)
    counters.give_back(one)
    assert [counters.count([one]).refused for _ in range(2)] == [False, True]


def test_windows_that_have_ended_leave_no_trace_in_memory() -> None:
    clock = Clock()
    counters = MemoryCounters(1, clock=clock)
    limit: RateLimitItem = RateLimitItemPerMinute(5)
    for number in range(1_000):
        counters.count([Hit(f"user-{number}", limit)])
    clock.now_s += 61
    counters.count([Hit("kim", limit)])
    assert len(counters._windows) == 1
