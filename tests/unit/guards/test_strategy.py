"""The strategy as Flask-Limiter uses it: one limit at a time, for a caller and a view."""

from __future__ import annotations

import time

import pytest
from limits import parse
from limits.strategies import STRATEGIES

from couponapp.guards.memory_counters import MemoryCounters
from couponapp.guards.strategy import NAME, AllOrNone
from tests.support.clock import Clock

TWO = parse("2/minute")


@pytest.fixture
def strategy() -> AllOrNone:
    return AllOrNone(counters=MemoryCounters(1, clock=Clock()))


def test_flask_limiter_finds_it_by_its_name() -> None:
    assert STRATEGIES[NAME].__name__ == AllOrNone.__name__


def test_a_look_counts_nothing_and_sees_when_the_limit_is_used_up(strategy: AllOrNone) -> None:
    assert [strategy.test(TWO, "kim", "mine") for _ in range(5)] == [True] * 5
    assert [strategy.hit(TWO, "kim", "mine") for _ in range(3)] == [True, True, False]
    assert not strategy.test(TWO, "kim", "mine")


def test_a_caller_counts_for_each_view_apart_whatever_the_callers_name(strategy: AllOrNone) -> None:
    callers = ("kim", "kim:mine", "mine:kim", "login:kim")
    pairs = [(caller, view) for caller in callers for view in ("mine", "login")]
    assert all(strategy.hit(parse("1/minute"), *pair) for pair in pairs)


def test_a_hit_counts_as_much_as_it_costs(strategy: AllOrNone) -> None:
    strategy.hit(parse("5/minute"), "kim", "mine", cost=4)
    assert strategy.get_window_stats(parse("5/minute"), "kim", "mine").remaining == 1


def test_the_end_of_a_window_is_told_as_a_time_of_day(strategy: AllOrNone) -> None:
    strategy.hit(TWO, "kim", "mine")
    before_s = time.time()
    stats = strategy.get_window_stats(TWO, "kim", "mine")
    assert before_s + 60 <= stats.reset_time <= time.time() + 60
    assert stats.remaining == 1
