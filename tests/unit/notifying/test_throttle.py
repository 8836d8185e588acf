"""A channel keeps its rate. On a clock that the test moves."""

from __future__ import annotations

import pytest

from couponapp.notifying.throttle import CATCH_UP_S, MIN_WAIT_S, Throttle
from tests.support.clock import Clock


def test_a_throttle_spreads_turns_evenly() -> None:
    now_s = [100.0]
    throttle = Throttle("5/second", clock=lambda: now_s[0])
    assert throttle.take() == 0.0
    assert throttle.take() == pytest.approx(0.2)
    now_s[0] += 0.21
    assert throttle.take() == 0.0
    now_s[0] += 60.0
    assert [throttle.take() > 0 for _ in range(3)] == [False, True, True]  # unused turns do not accumulate


def test_a_throttle_keeps_its_rate_when_the_process_wakes_up_late_and_exceeds_it_only_briefly() -> None:
    now_s, taken = [100.0], 0
    throttle = Throttle("350/second", clock=lambda: now_s[0])
    for _ in range(100):
        while (pause_s := throttle.take()) == 0.0:
            taken += 1
        now_s[0] += pause_s + 0.03  # wakes up later than asked
    rate = taken / (now_s[0] - 100.0)
    assert rate == pytest.approx(350, rel=0.01)
    now_s[0] += 3600.0
    burst = 0
    while throttle.take() == 0.0:
        burst += 1
    assert burst <= 350 * CATCH_UP_S + 1


def test_a_fast_channel_waits_long_enough_for_several_turns_to_come_together() -> None:
    throttle = Throttle("1000/second", clock=Clock())
    waits_s = [throttle.take() for _ in range(2)]
    assert waits_s == [0.0, MIN_WAIT_S]


def test_the_turns_of_a_time_are_as_many_as_the_rate_allows_and_never_none() -> None:
    throttle = Throttle("30/minute", clock=Clock())
    assert [throttle.turns(seconds) for seconds in (60.0, 9.0, 1.9, 0.0)] == [30, 4, 1, 1]
