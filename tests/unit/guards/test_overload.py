"""The overload guard cuts a standing queue and serves a burst completely. On a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from couponapp.errors import Overloaded
from couponapp.guards.overload import OverloadGuard
from tests.support.clock import Clock

# Sums of binary fractions are exact.
TARGET_S, PATIENCE_S, EACH_S = 4 / 16, 2.0, 1 / 16


class Loop:
    """A server whose rounds last as long as the requests in them."""

    def __init__(self, *, target_s: float = TARGET_S, told: bool = True) -> None:
        self.clock = Clock()
        self.backlog = OverloadGuard(target_s=target_s, patience_s=PATIENCE_S, clock=self.clock)
        self._told = told

    def round(self, requests: int) -> list[bool]:
        """Serve so many; which of them were let in. A refusal takes no time."""
        if self._told:
            self.backlog.begin_round()
        let_in = list(self._serve(requests))
        if self._told:
            self.backlog.end_round()
        return let_in

    def _serve(self, requests: int) -> Iterator[bool]:
        for _ in range(requests):
            try:
                self.backlog.check()
            except Overloaded:
                yield False
            else:
                self.clock.move(EACH_S)
                yield True

    def idle(self, seconds: float) -> None:
        self.clock.move(seconds)


def test_short_rounds_admit_every_request_however_many_there_are() -> None:
    loop = Loop()
    for _ in range(1000):
        assert all(loop.round(4))


def test_a_burst_is_served_completely() -> None:
    loop = Loop()
    assert all(loop.round(32))  # the last has waited for nearly two seconds
    assert all(loop.round(3))


def test_a_burst_that_lasts_longer_than_the_patience_is_cut_there() -> None:
    loop = Loop()
    assert loop.round(50) == [True] * 32 + [False] * 18


def test_a_standing_queue_is_cut_to_the_target() -> None:
    loop = Loop()
    for _ in range(3):  # 30 requests take just less than the patience
        assert all(loop.round(10))
    for _ in range(20):
        assert loop.round(10) == [True] * 5 + [False] * 5  # the fifth has waited for just the target


def test_one_round_within_the_target_ends_the_overload() -> None:
    loop = Loop()
    began_s = loop.clock()
    while loop.clock() < began_s + PATIENCE_S:
        loop.round(10)
    assert not all(loop.round(10))
    assert all(loop.round(4))
    assert all(loop.round(10))


def test_time_between_two_rounds_counts_only_while_both_are_long() -> None:
    loop = Loop()
    loop.round(10)
    loop.idle(10.0)
    # Nothing was short in between: the queue still stands.
    assert not all(loop.round(10))
    loop.round(1)
    loop.idle(10.0)
    assert all(loop.round(10))


def test_a_target_of_zero_refuses_nothing() -> None:
    assert all(Loop(target_s=0.0).round(1000))


def test_without_reported_rounds_nothing_is_refused() -> None:
    assert all(Loop(told=False).round(1000))


def test_the_longest_round_is_reported_once() -> None:
    loop = Loop()
    loop.round(3)
    loop.round(7)
    loop.round(2)
    assert loop.backlog.longest_s() == pytest.approx(7 * EACH_S)
    assert loop.backlog.longest_s() == 0.0


def test_many_refusals_are_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    loop = Loop()
    for _ in range(5):
        loop.round(200)
    assert len(caplog.records) == 1
