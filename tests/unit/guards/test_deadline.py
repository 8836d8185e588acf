"""One bound for all waits of a request, on a clock that the test moves."""

from __future__ import annotations

import pytest

from couponapp.errors import DeadlineExceeded
from couponapp.guards.deadline import Deadline
from tests.support.clock import Clock


def test_a_deadline_tells_what_is_left_and_then_refuses() -> None:
    clock = Clock()
    deadline = Deadline(1.0, clock=clock)
    assert deadline.remaining_s() == 1.0
    clock.move(0.75)
    assert deadline.remaining_s() == 0.25
    clock.move(0.25)
    with pytest.raises(DeadlineExceeded):
        deadline.remaining_s()


def test_it_has_exactly_what_is_left_and_not_more() -> None:
    clock = Clock()
    deadline = Deadline(1.0, clock=clock)
    clock.move(0.75)
    assert deadline.has_s(0.25)
    assert not deadline.has_s(0.26)
    clock.move(5.0)
    assert not deadline.has_s(0.0)
