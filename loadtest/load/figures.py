"""The figures of a run, computed from its results: by code, by kind, second by second, step by step."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from statistics import quantiles
from typing import Any

from loadtest.driver.generator import GAVE_UP, NOT_SENT, Result
from loadtest.load.plans import Step
from loadtest.load.scenarios import BOT, ISSUE, ISSUE_AGAIN

QUANTILES = (50.0, 95.0, 99.0, 99.9)
ATTEMPTS = (ISSUE, ISSUE_AGAIN, BOT)
NO_ANSWER = ("NO_ANSWER", GAVE_UP, NOT_SENT)
REFUSALS = ("SOLD_OUT", "TOO_MANY_REQUESTS", "SERVICE_UNAVAILABLE")
# Upper bounds of the histogram's buckets: 1 ms, and each 1.25 times the one before, beyond half a minute.
BOUNDS_MS = tuple(round(1.25**power, 3) for power in range(48))


def percentiles_ms(latencies_s: Sequence[float]) -> dict[float, float]:
    """Return p50, p95, p99 and p99.9 in milliseconds, interpolated between neighbours.

    Args:
        latencies_s: in seconds; all percentiles of an empty sequence are 0.
    """
    if len(latencies_s) < 2:
        return dict.fromkeys(QUANTILES, 1000 * sum(latencies_s))
    cuts = quantiles(latencies_s, n=1000, method="inclusive")
    return {q: 1000 * cuts[round(10 * q) - 1] for q in QUANTILES}


def summary(latencies_s: Sequence[float]) -> dict[str, Any]:
    """Return number, percentiles and maximum of some latencies, in milliseconds."""
    shown = {f"p{q:g}_ms": round(value, 3) for q, value in percentiles_ms(latencies_s).items()}
    return {"count": len(latencies_s), **shown, "max_ms": round(1000 * max(latencies_s, default=0.0), 3)}


def latencies(results: Iterable[Result]) -> dict[str, dict[str, Any]]:
    """Return latencies by kind of request, with a histogram from which any percentile can be computed."""
    by_kind: dict[str, list[float]] = defaultdict(list)
    for result in results:
        by_kind[result.kind].append(result.latency_s)
    return {kind: {**summary(seen), "histogram": histogram(seen)} for kind, seen in sorted(by_kind.items())}


def histogram(latencies_s: Iterable[float]) -> list[list[float]]:
    """Return pairs of a bucket's upper bound in milliseconds and its number, without empty buckets."""
    last = len(BOUNDS_MS) - 1
    filled = Counter(min(bisect_left(BOUNDS_MS, 1000 * latency_s), last) for latency_s in latencies_s)
    return [[BOUNDS_MS[bucket], number] for bucket, number in sorted(filled.items())]


def answers(results: Sequence[Result], seconds: float) -> dict[str, Any]:
    """Count results by code, and the two rates that must not be mixed: issued and refused.

    Args:
        results: of the whole run.
        seconds: length over which the rates are taken.
    """
    codes = Counter(result.code for result in results)
    attempts = Counter(result.code for result in results if result.kind in ATTEMPTS)
    refused = sum(attempts[code] for code in REFUSALS)
    return {
        "count": len(results),
        "by_code": dict(codes.most_common()),
        "issued": attempts["ISSUED"],
        "issued_per_s": round(attempts["ISSUED"] / seconds, 2),
        "refused": refused,
        "refused_per_s": round(refused / seconds, 2),
        "server_errors": sum(1 for result in results if result.status >= 500),
        "unanswered": sum(codes[code] for code in NO_ANSWER),
    }


def is_good(result: Result) -> bool:
    """Whether it counts as goodput: decided or shown, and neither shed nor too late."""
    return 200 <= result.status < 500 and result.status not in (408, 429)


def goodput_per_s(results: Iterable[Result], step: Step) -> float:
    """Return good responses per second that arrived within a step."""
    good = sum(1 for result in results if is_good(result) and step.from_s <= result.answered_s < step.to_s)
    return good / (step.to_s - step.from_s)


def by_second(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return for each second what was planned, what was answered, and how long attempts took that were planned then."""
    planned = Counter(int(result.at_s) for result in results)
    answered: dict[int, Counter[str]] = defaultdict(Counter)
    attempts: dict[int, list[float]] = defaultdict(list)
    for result in results:
        answered[int(result.answered_s)][result.code] += 1
        if result.kind in ATTEMPTS:
            attempts[int(result.at_s)].append(result.latency_s)
    rows = []
    for second in range(1 + max([*planned, *answered], default=-1)):
        shown = percentiles_ms(attempts[second])
        rows.append(
            {
                "second": second,
                "planned": planned[second],
                "answered": dict(answered[second]),
                "attempts_p50_ms": round(shown[50.0], 3),
                "attempts_p99_ms": round(shown[99.0], 3),
            }
        )
    return rows


def lateness(by_process: Sequence[Sequence[Result]]) -> list[dict[str, Any]]:
    """Return how late each generator process itself was; the worst of them counts for the run."""
    return [summary([result.late_s for result in results]) for results in by_process]
