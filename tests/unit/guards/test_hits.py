"""How a request stands after its hits."""

from __future__ import annotations

from limits import parse

from couponapp.guards.hits import Hit, RateLimitStatus, status_of


def test_the_limit_that_refuses_is_reported_and_otherwise_the_first() -> None:
    amounts = [5, 9]
    assert status_of(amounts, [0, 2, 30_000, 7, 500]) == RateLimitStatus(False, limit=5, remaining=3, reset_s=30)
    assert status_of(amounts, [2, 2, 30_000, 9, 7_000]) == RateLimitStatus(True, limit=9, remaining=0, reset_s=7)


def test_nobody_is_asked_to_come_back_before_the_window_ends_or_at_once() -> None:
    asked_s = [status_of([1], [1, 1, left_ms]).reset_s for left_ms in (0, 1, 1_000, 1_001, 59_999)]
    assert asked_s == [1, 1, 1, 2, 60]


def test_a_limit_that_was_lowered_below_its_count_leaves_nothing_and_not_less() -> None:
    assert status_of([5], [1, 7, 1_000]).remaining == 0


def test_another_limit_on_the_same_key_counts_anew() -> None:
    assert Hit("kim", parse("5/minute")).name != Hit("kim", parse("6/minute")).name
    assert Hit("kim", parse("5/minute")).name != Hit("kim", parse("5/hour")).name
