"""The figures of a load run."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from statistics import quantiles

import pytest

from loadtest.driver.generator import Result
from loadtest.load import figures
from loadtest.load.plans import Step
from loadtest.load.scenarios import ISSUE, LOOK_UP
from tests.support.loadrun import good_results


def test_the_four_percentiles_are_those_of_the_standard_library() -> None:
    latencies_s = [number / 1000 for number in range(1, 3001)]
    cuts = quantiles([1000 * value for value in latencies_s], n=1000, method="inclusive")
    assert figures.percentiles_ms(latencies_s) == pytest.approx(
        {50: cuts[499], 95: cuts[949], 99: cuts[989], 99.9: cuts[998]}
    )
    assert figures.percentiles_ms([]) == dict.fromkeys(figures.QUANTILES, 0)
    assert figures.percentiles_ms([0.2]) == dict.fromkeys(figures.QUANTILES, 200)


def test_the_histogram_gives_a_percentile_within_a_quarter() -> None:
    latencies_s = [0.001 * 1.01**number for number in range(800)]
    buckets = figures.histogram(latencies_s)
    up_to = accumulate(number for _, number in buckets)
    bound_ms = next(bucket[0] for bucket, seen in zip(buckets, up_to, strict=True) if seen >= 0.99 * len(latencies_s))
    p99_ms = figures.percentiles_ms(latencies_s)[99.0]
    assert p99_ms <= bound_ms <= 1.25 * p99_ms * 1.02


def test_issued_and_refused_are_counted_apart_and_reads_count_as_neither() -> None:
    counted = figures.answers(good_results(), 30)
    assert (counted["issued"], counted["refused"], counted["count"]) == (100, 200, 300)
    assert (counted["issued_per_s"], counted["refused_per_s"]) == (pytest.approx(3.33), pytest.approx(6.67))
    assert counted["by_code"] == {"SOLD_OUT": 200, "ISSUED": 100}


def result(at_s: float, latency_s: float, code: str = "ISSUED", status: int = 201, kind: str = ISSUE) -> Result:
    return Result(at_s, kind, latency_s, status, code, f"user-{at_s}", sent_s=at_s)


def test_a_response_counts_in_the_second_in_which_it_came_and_its_latency_in_the_second_of_its_plan() -> None:
    rows = figures.by_second([result(0.9, 0.2), result(0.95, 2.1), result(2.0, 0.1, "OK", 200, LOOK_UP)])
    assert [row["planned"] for row in rows] == [2, 0, 1, 0]
    assert [row["answered"] for row in rows] == [{}, {"ISSUED": 1}, {"OK": 1}, {"ISSUED": 1}]
    assert [row["attempts_p50_ms"] for row in rows] == [1150.0, 0, 0, 0]


def test_a_run_without_results_has_no_seconds_and_no_latencies() -> None:
    assert figures.by_second([]) == []
    assert figures.latencies([]) == {}
    assert figures.lateness([[]])[0]["count"] == 0


@pytest.mark.parametrize(
    ("status", "good"), [(200, True), (201, True), (409, True), (429, False), (408, False), (503, False), (0, False)]
)
def test_goodput_is_what_was_decided_or_shown_and_neither_shed_nor_late(status: int, good: bool) -> None:
    assert figures.is_good(result(0.0, 0.1, status=status)) is good


def test_goodput_of_a_step_counts_what_came_within_it() -> None:
    step = Step(1.0, 3.0, 2.0)
    came_s = (0.99, 1.0, 2.0, 2.99, 3.0)
    assert figures.goodput_per_s([result(at_s - 0.5, 0.5) for at_s in came_s], step) == 1.5


def test_a_latency_beyond_the_last_bucket_is_counted_in_it() -> None:
    assert figures.histogram([0.0005, 0.001, 9_999.0]) == [[1.0, 2], [figures.BOUNDS_MS[-1], 1]]


def test_lateness_is_shown_for_each_process_so_that_one_late_process_is_not_hidden_by_the_others() -> None:
    on_time, late = [result(0.0, 0.1)] * 99, [replace(result(0.0, 0.1), late_s=0.5)]
    assert [one["max_ms"] for one in figures.lateness([on_time, late])] == [0.0, 500.0]
