"""When a state may have held, where each change happened at an unknown moment between two known ones."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.load.possible import FROM_THE_START, NEVER, Life, Operated, Times

SPANS = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=4)


@given(SPANS, st.integers(-1, 8), st.integers(0, 4))
def test_merged_spans_meet_exactly_the_moments_that_one_of_them_holds(
    spans: list[tuple[int, int]], from_s: int, length_s: int
) -> None:
    to_s = from_s + length_s
    met = any(start <= end and start <= to_s and from_s <= end for start, end in spans)
    assert Times(spans).meet(from_s, to_s) is met


def held(times: Times, *moments: float) -> list[bool]:
    return [times.meet(at_s, at_s) for at_s in moments]


def test_around_the_opening_and_the_end_both_states_are_possible_within_the_error_of_the_clock() -> None:
    life = Life(1, opens_s=10.0, closes_s=20.0, clock_error_s=0.5)
    moments = (9.4, 9.5, 10.5, 10.6, 19.4, 19.5, 20.5, 20.6)
    assert held(life.not_open_yet(), *moments) == [True, True, True, False, False, False, False, False]
    assert held(life.open(), *moments) == [False, True, True, True, True, True, True, False]
    assert held(life.closed(), *moments) == [False, False, False, False, False, True, True, True]


def test_a_pause_may_begin_when_it_was_sent_and_last_until_its_end_was_answered() -> None:
    life = Life(1, operated=[Operated("pause", 2.0, 3.0), Operated("resume", 5.0, 6.0)])
    moments = (1.9, 2.0, 2.5, 3.1, 4.9, 5.0, 6.0, 6.1)
    assert held(life.paused(), *moments) == [False, True, True, True, True, True, True, False]
    assert held(life.open(), *moments) == [True, True, True, False, False, True, True, True]


def test_a_pause_of_which_nobody_knows_whether_it_was_done_leaves_both_possible_for_ever() -> None:
    life = Life(1, operated=[Operated("pause", 2.0, NEVER)])
    assert held(life.paused(), 1.9, 2.0, 1e9) == [False, True, True]
    assert held(life.open(), 2.0, 1e9) == [True, True]


def test_a_closed_coupon_is_never_open_again() -> None:
    life = Life(1, operated=[Operated("close", 2.0, 3.0)])
    assert held(life.closed(), 1.9, 2.0, 1e9) == [False, True, True]
    assert held(life.open(), 2.0, 3.0, 3.1) == [True, True, False]


def test_it_is_sold_out_from_the_earliest_last_piece_until_a_restock_was_answered() -> None:
    life = Life(2, operated=[Operated("restock", 5.0, 6.0, pieces=1)])
    sold_out = life.sold_out([1.0, 2.0, 7.0])
    assert held(sold_out, 1.9, 2.0, 6.0, 6.1, 7.0, 1e9) == [False, True, True, False, True, True]
    assert held(Life(0).sold_out([]), FROM_THE_START, 0.0) == [True, True]
    assert held(Life(1).sold_out([]), 0.0, 1e9) == [False, False]


@pytest.mark.parametrize(
    ("gone_s", "oversold_s"),
    [([1.0, 2.0], None), ([1.0, 2.0, 3.0], 3.0), ([1.0, 2.0, 5.0], None), ([5.0, 5.5, 6.0, 6.5], 6.5)],
)
def test_too_many_are_gone_only_once_not_even_a_restock_under_way_explains_them(
    gone_s: list[float], oversold_s: float | None
) -> None:
    assert Life(2, operated=[Operated("restock", 5.0, 6.0, pieces=1)]).oversold_s(gone_s) == oversold_s


def test_the_total_is_between_the_restocks_that_are_done_and_those_that_have_begun() -> None:
    life = Life(2, operated=[Operated("restock", 5.0, 6.0, pieces=3), Operated("restock", 8.0, NEVER, pieces=4)])
    bounds = [(life.least_total(at_s), life.most_total(at_s)) for at_s in (4.9, 5.0, 6.0, 6.1, 8.0, math.inf)]
    assert bounds == [(2, 2), (2, 5), (2, 5), (5, 5), (5, 9), (5, 9)]
