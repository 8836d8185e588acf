"""What is promised during a fault, and that a fault always ends."""

from __future__ import annotations

import pytest

from loadtest.faults.fault import BOUND_S, ISSUE, KINDS, LOOK_UP, MINE, Promise, Promises, answers, during


def test_each_kind_of_request_has_the_promise_that_was_given_for_it() -> None:
    issue, look_up, mine = answers(201, 503), answers(200), answers(200, 503, p99_s=0.4, done=0.5)
    promises = Promises("", issue, look_up, mine)
    assert {kind: promises.of(kind) for kind in KINDS} == {ISSUE: issue, LOOK_UP: look_up, MINE: mine}


def test_a_promise_allows_its_statuses_within_the_bound_of_the_service_unless_told_otherwise() -> None:
    assert answers(201, 503) == Promise(frozenset({201, 503}), BOUND_S, done=0.0)


def test_a_fault_ends_also_when_the_block_fails() -> None:
    told: list[str] = []

    def fail() -> None:
        told.append("lasts")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), during(lambda: told.append("begins"), lambda: told.append("ends")):
        fail()
    assert told == ["begins", "lasts", "ends"]


def test_a_fault_that_cannot_begin_is_not_ended_either() -> None:
    ended: list[str] = []

    def fail() -> None:
        raise OSError

    with pytest.raises(OSError), during(fail, lambda: ended.append("ended")):  # noqa: PT011  # any, it is the test's own
        raise AssertionError("the block was entered")
    assert ended == []
