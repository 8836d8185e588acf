"""Limits per user, per address, for all users and for this process: all let pass, or none is counted."""

from __future__ import annotations

import pytest
from redis import Redis

from couponapp.errors import TooManyRequests
from couponapp.guards.hits import Counters
from couponapp.guards.memory_counters import MemoryCounters
from couponapp.guards.rate_limits import FallbackCounters, LimitRates, RateLimits
from couponapp.guards.strategy import AllOrNone
from couponapp.local.postgres import free_port
from tests.support.clock import Clock

MANY = "1000000/minute"


class Limits:
    """The limits of one process, whose numbers the test changes."""

    def __init__(self, rates: LimitRates, counters: Counters | None = None) -> None:
        self.rates = rates
        self.clock = Clock()
        strategy = AllOrNone(counters=counters or MemoryCounters(1, clock=self.clock))
        self.limits = RateLimits(strategy, scope="test", rates=lambda: self.rates)

    def passes(self, user: str, address: str = "") -> bool:
        try:
            self.limits.hit(user, address)
        except TooManyRequests:
            return False
        return True


def test_a_user_over_the_own_limit_uses_up_nobody_elses() -> None:
    limits = Limits(LimitRates("2/minute", "4/minute"))
    assert [limits.passes("kim") for _ in range(20)] == [True, True] + [False] * 18
    assert [limits.passes("lee"), limits.passes("lee")] == [True, True]
    assert not limits.passes("park")  # now the limit of all is used up, by those who passed


def test_an_address_has_a_limit_of_its_own_where_one_is_set() -> None:
    limits = Limits(LimitRates(MANY, MANY, address_rate="2/minute"))
    assert [limits.passes(f"user-{n}", "192.0.2.7") for n in range(3)] == [True, True, False]
    assert limits.passes("user-3", "192.0.2.8")
    limits.rates = LimitRates(MANY, MANY)
    assert limits.passes("user-4", "192.0.2.7")


def test_a_user_whose_id_is_somebodys_address_counts_for_nobody_else() -> None:
    limits = Limits(LimitRates("2/minute", MANY, address_rate="2/minute"))
    assert [limits.passes("kim", "192.0.2.7") for _ in range(3)] == [True, True, False]
    assert limits.passes("192.0.2.7", "kim")


def test_the_process_limit_is_not_used_up_by_those_who_are_refused_elsewhere() -> None:
    limits = Limits(LimitRates("1/minute", MANY, "2/minute"))
    assert [limits.passes("kim") for _ in range(5)] == [True, False, False, False, False]
    assert [limits.passes("lee"), limits.passes("park")] == [True, False]


def test_the_limit_of_a_user_is_not_used_up_while_the_process_refuses() -> None:
    limits = Limits(LimitRates("1/minute", MANY, "1/minute"))
    assert [limits.passes("kim"), limits.passes("lee")] == [True, False]
    limits.rates = LimitRates("1/minute", MANY)
    assert limits.passes("lee")


def test_an_attempt_shows_how_its_user_stands_also_when_the_limit_of_all_is_tighter() -> None:
    limits = Limits(LimitRates("5/minute", "2/minute"))
    assert limits.limits.hit("kim").remaining == 4
    limits.clock.move(20)
    status = limits.limits.hit("kim")
    assert (status.limit, status.remaining, status.reset_s) == (5, 3, 40)


def test_a_refusal_says_which_limit_is_used_up_and_when_it_ends() -> None:
    limits = Limits(LimitRates("5/minute", "2/hour"))
    assert [limits.passes("kim"), limits.passes("lee")] == [True, True]
    limits.clock.move(600)
    with pytest.raises(TooManyRequests) as refusal:
        limits.limits.hit("park")
    assert (refusal.value.limit, refusal.value.retry_after_s) == (2, 3000)


def test_without_redis_each_process_takes_its_part_of_the_limit_of_all() -> None:
    nobody = f"redis://127.0.0.1:{free_port()}/0"
    counters = FallbackCounters(lambda s: Redis.from_url(nobody, socket_connect_timeout=s), processes=4)
    limits = Limits(LimitRates("1/minute", "8/minute"), counters)
    assert [limits.passes(f"user-{n}") for n in range(4)] == [True, True, False, False]
    assert not limits.passes("user-0")
