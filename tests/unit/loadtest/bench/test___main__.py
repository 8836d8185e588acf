"""The verdict of `make bench`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loadtest.bench.__main__ import judged
from tests.support.benchrun import with_ratio


def test_a_fall_counts_only_if_it_is_measured_twice(measured: dict[str, Any]) -> None:
    fell, other = with_ratio(measured, 0, 0.5), with_ratio(measured, 1, 0.5)
    asked: list[list[str]] = []

    def verdict(first: dict[str, Any], second: dict[str, Any]) -> int:
        def once_more(parts: Sequence[str]) -> dict[str, Any]:
            asked.append(list(parts))
            return second

        return judged(measured, first, ["core", "guards", "growth"], once_more)

    assert verdict(measured, fell) == 0
    assert asked == []
    assert verdict(fell, measured) == 0
    assert verdict(fell, other) == 0
    assert verdict(fell, fell) == 1
    assert verdict(other, other) == 1
    assert asked == [["core"], ["core"], ["core"], ["guards"]]
