"""Ratios of `make bench` are computed round by round, with made-up figures."""

from __future__ import annotations

from typing import Any

from loadtest.bench import result
from loadtest.bench.core import BARE, ISSUED
from loadtest.bench.result import ANSWERS, CPU


def test_a_ratio_is_computed_round_by_round_so_a_slow_moment_of_the_machine_cancels_out(
    measured: dict[str, Any],
) -> None:
    shown = measured["groups"][0]["ratios"][0]
    assert shown[ANSWERS] == {"median": 0.5, "low": 0.45, "high": 0.5}
    # Not the ratio of the medians, which would be 1.
    skewed = {ANSWERS: [10.0, 100.0, 100.0], "base": [100.0, 100.0, 400.0]}
    one, other = ({"rates": rates, "cpu_ms": {"web": [1.0] * 3}} for rates in skewed.values())
    assert result.ratio(one, other)[ANSWERS]["median"] == 0.25
    assert result.ratio(other, one)[ANSWERS]["median"] == 4


def test_more_is_better_in_both_kinds_of_ratio(measured: dict[str, Any]) -> None:
    shown = measured["groups"][0]["ratios"][0]
    assert (shown["of"], shown["to"]) == (ISSUED, BARE)
    assert shown[CPU]["median"] == 0.5  # of the bare route's answers from the same computing time
    assert measured["groups"][1]["ratios"][0][CPU]["median"] == 0.5
    assert measured["groups"][2]["ratios"][0][ANSWERS] == {"median": 0.6, "low": 0.55, "high": 0.675}


def test_a_turn_too_short_for_the_processors_clock_has_no_ratio_of_computing_time() -> None:
    one = {"rates": [10.0, 10.0], "cpu_ms": {"web": [0.0, 1.0]}}
    other = {"rates": [10.0, 10.0], "cpu_ms": {"web": [1.0, 2.0]}}
    assert result.ratio(one, other)[CPU]["median"] == 2
    assert CPU not in result.ratio({**one, "cpu_ms": {"web": [0.0, 0.0]}}, other)


def test_a_spread_is_the_middle_half_of_the_rounds_and_of_one_round_itself() -> None:
    assert result.spread([1.0, 2.0, 3.0, 4.0, 500.0]) == {"median": 3.0, "low": 2.0, "high": 4.0}
    assert result.spread([7.0]) == {"median": 7.0, "low": 7.0, "high": 7.0}
