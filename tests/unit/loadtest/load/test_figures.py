"""The figures of a load run."""

from __future__ import annotations

from itertools import accumulate
from statistics import quantiles

import pytest

from loadtest.load import figures
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
