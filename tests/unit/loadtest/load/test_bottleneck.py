"""The limit of a run is reported in sentences."""

from __future__ import annotations

import pytest

from loadtest.driver.usage import Sample
from loadtest.load import bottleneck
from tests.support.loadrun import samples

PUNCTUAL = [{"p99_ms": 2.0}]


@pytest.mark.parametrize(
    ("what", "seen", "lateness"),
    [
        ("generator itself was late", samples(), [{"p99_ms": 2.0}, {"p99_ms": 80.0}]),
        ("2 processors were 97 % busy", samples(machine_percent=97.0, web_percent=190.0), PUNCTUAL),
        ("One process of web used 95 %", samples(web_percent=95.0, machine_percent=60.0), PUNCTUAL),
        ("or other guests of its host, used 60 %", samples(web_percent=20.0), PUNCTUAL),
        ("No processor was full", samples(web_percent=78.0), PUNCTUAL),
    ],
)
def test_the_limit_is_reported(what: str, seen: list[Sample], lateness: list[dict[str, float]]) -> None:
    sentences = " ".join(bottleneck.limits(seen, lateness, processors=2))
    assert what in sentences
    assert ("generator itself" in sentences) == (lateness is not PUNCTUAL)


def test_the_seconds_before_and_after_the_run_are_left_out() -> None:
    assert [sample.at_s for sample in bottleneck.during(samples(), 4)] == [1.0, 2.0, 3.0, 4.0]


def test_without_samples_only_the_generator_can_be_the_limit() -> None:
    assert bottleneck.limits([], PUNCTUAL, processors=2) == []
    assert len(bottleneck.limits([], [{"p99_ms": 80.0}], processors=2)) == 1
