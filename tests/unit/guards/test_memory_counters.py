"""Counters in memory against an obviously right one: sequences of requests and times."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from limits import RateLimitItem, RateLimitItemPerMinute

from couponapp.guards.hits import Hit, RateLimitStatus
from couponapp.guards.memory_counters import MemoryCounters, Window
from tests.support.clock import Clock
from tests.support.counters import Reference, limits_of, reported, steps


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


def passed(processes: int, allowed: int, *, shared: bool) -> int:
    """How many of a hundred hits one of so many processes lets pass."""
    counters, one = MemoryCounters(processes, clock=Clock()), Hit("all", RateLimitItemPerMinute(allowed), shared)
    return sum(not counters.count([one]).refused for _ in range(100))


def test_a_process_takes_its_part_of_a_shared_limit_and_at_least_one() -> None:
    assert passed(4, 8, shared=True) == 2
    assert passed(4, 7, shared=True) == 1
    assert passed(4, 2, shared=True) == 1
    assert passed(4, 8, shared=False) == 8


def test_a_window_begins_with_its_first_hit_and_not_with_a_look() -> None:
    clock = Clock()
    counters, one = MemoryCounters(1, clock=clock), Hit("kim", RateLimitItemPerMinute(1))
    counters.count([one], 0)
    clock.move(30)
    counters.count([one])
    clock.move(45)
    assert counters.count([one]).refused
    assert counters.count([one]).reset_s == 15


def test_what_another_limit_refuses_opens_no_window() -> None:
    clock = Clock()
    counters = MemoryCounters(1, clock=clock)
    own, every = Hit("kim", RateLimitItemPerMinute(5)), Hit("all", RateLimitItemPerMinute(1))
    counters.count([every])
    clock.move(59)
    assert counters.count([own, every]).refused
    clock.move(2)
    assert counters.count([own, every]).reset_s == 60
