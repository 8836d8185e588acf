"""Compares what was seen with what was promised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from couponapp.operating.verify import verify
from couponapp.storage.pool import Pool, Timeouts
from loadtest.driver.generator import Result
from loadtest.faults.fault import BOUND_S, CIRCUIT_CLOSES_S, ISSUE, KINDS, LOOK_UP, MINE, Fault, Lost, Shows
from loadtest.load.figures import percentiles_ms

# A user and the code of an issuance that the user was shown.
Shown = tuple[str, str]
# A request that was in flight when a process died was sent at most this long before.
UNDER_WAY_S = BOUND_S
# A request may leave this much later than planned.
PLANNED_S = 0.1


@dataclass(frozen=True)
class Timeline:
    """When things happened, in seconds of the load's clock.

    Attributes:
        began_s: just before the fault.
        ended_s: when everything that the fault has broken, and that the service cannot mend, was whole again.
        circuit_opened: in any web process.
        without_redis: some web process has counted its limits by itself.
    """

    began_s: float
    ended_s: float
    circuit_opened: bool = False
    without_redis: bool = False

    def back_s(self, fault: Fault, kind: str) -> float:
        """Return how long after the fault this kind may be affected. Only attempts are behind the circuit."""
        return CIRCUIT_CLOSES_S if self.circuit_opened and kind == ISSUE else fault.back_s

    def touches(self, fault: Fault, result: Result) -> bool:
        """Whether the request was in flight, or was planned, between the fault and the end of its effects."""
        return result.answered_s >= self.began_s and result.at_s <= self.ended_s + self.back_s(fault, result.kind)


def broken_answers(fault: Fault, timeline: Timeline, results: Sequence[Result]) -> list[str]:
    """Return every broken promise about responses, one sentence each."""
    broken: list[str] = []
    for result in results:
        broken += _wrong(fault, timeline, result)
    for kind in KINDS:
        broken += _wrong_as_a_whole(fault, timeline, kind, [one for one in results if one.kind == kind])
    back_s = first_issued_s(timeline, results)
    if back_s is None or back_s > timeline.back_s(fault, ISSUE):
        broken.append(f"the first 201 came {'never' if back_s is None else f'{back_s:.1f} s'} after the fault")
    if not _has_shown(fault, timeline, results):
        shows = fault.promises.shows.value.replace("some", "no", 1)
        broken.append(f"the fault has not reached the service: {shows}")
    return _first_of_each(broken)


def shown_issued(results: Iterable[Result]) -> set[Shown]:
    """Return the users who got a 201, each with every code that came with it."""
    return {(one.who, one.issuance) for one in results if one.status == 201}


def broken_records(url: str, shown: set[Shown]) -> list[str]:
    """Return every broken invariant, and how many issuances that users were shown are not recorded.

    Args:
        url: PostgreSQL's address.
        shown: from `shown_issued`.
    """
    pool = Pool(url, name="judge", max_size=1, timeouts=Timeouts.within(20_000))
    with closing(pool):
        broken = verify(pool).violations
        recorded = {row["user_id"]: row["code"] for row in pool.fetch_all("SELECT user_id, code FROM issuances")}
    if missing := {user for user, _ in shown if user not in recorded}:
        broken.append(f"{len(missing)} got ISSUED and are not recorded")
    if other := {user for user, code in shown if recorded.get(user, code) != code}:
        broken.append(f"{len(other)} got another code than is recorded")
    return broken


def first_issued_s(timeline: Timeline, results: Sequence[Result]) -> float | None:
    """Return how long after the fault's end an attempt planned since then got the first 201."""
    issued_s = [one.answered_s for one in results if one.status == 201 and one.at_s >= timeline.ended_s]
    return min(issued_s) - timeline.ended_s if issued_s else None


def seen(fault: Fault, timeline: Timeline, results: Sequence[Result]) -> str:
    """Return what was measured, in short; `bound` returns the bounds."""
    codes = Counter(one.code for one in results if one.kind == ISSUE and timeline.touches(fault, one))
    slowest_s = max((one.latency_s for one in results if one.status), default=0.0)
    p99s = "/".join(f"{_p99_ms(timeline, results, kind):.0f}" for kind in (LOOK_UP, MINE))
    back_s = first_issued_s(timeline, results)
    parts = [
        *(f"{count} {code}" for code, count in codes.most_common()),
        f"slowest {slowest_s:.2f} s",
        f"reads p99 {p99s} ms",
        f"201 after {'-' if back_s is None else f'{back_s:.1f}'} s",
        *(["circuit opened"] if timeline.circuit_opened else []),
        *(["own counters"] if timeline.without_redis else []),
    ]
    return ", ".join(parts)


def bound(fault: Fault, timeline: Timeline) -> str:
    """Return the bounds of the figures of `seen`, in the same order."""
    p99s = "/".join(f"{1000 * fault.promises.of(kind).p99_s:.0f}" for kind in (LOOK_UP, MINE))
    return f"{BOUND_S} s, {p99s} ms, {timeline.back_s(fault, ISSUE):.0f} s"


def _wrong(fault: Fault, timeline: Timeline, result: Result) -> Iterator[str]:
    usual = 201 if result.kind == ISSUE else 200
    touched = timeline.touches(fault, result)
    what = f"{result.kind}: {result.code} at {result.at_s - timeline.began_s:+.1f} s"
    if not result.status:
        if not _may_be_lost(fault, timeline, result):
            yield what
        return
    if result.status != usual and not (touched and result.status in fault.promises.of(result.kind).statuses):
        yield what
    if result.status in (429, 503) and not result.retry_after_s:
        yield f"{what}: without Retry-After"
    if result.latency_s > BOUND_S:
        yield f"{result.kind}: late at {result.at_s - timeline.began_s:+.1f} s: {result.latency_s:.2f} s"


def _has_shown(fault: Fault, timeline: Timeline, results: Sequence[Result]) -> bool:
    attempts = [one for one in results if one.kind == ISSUE and timeline.touches(fault, one)]
    shown = {
        Shows.NOTHING: True,
        Shows.REFUSALS: any(one.status == 503 for one in attempts),
        Shows.NOT_OPEN: any(one.code == "NOT_OPEN" for one in attempts),
        Shows.OWN_COUNTERS: timeline.without_redis,
    }
    return shown[fault.promises.shows]


def _may_be_lost(fault: Fault, timeline: Timeline, result: Result) -> bool:
    may_be = {
        Lost.NONE: False,
        Lost.UNDER_WAY: abs(result.at_s - timeline.began_s) <= UNDER_WAY_S,
        Lost.NEWCOMERS: timeline.began_s + fault.loses_after_s - PLANNED_S <= result.at_s <= timeline.ended_s,
        Lost.FEW: timeline.touches(fault, result),
    }
    return may_be[fault.lost]


def _wrong_as_a_whole(fault: Fault, timeline: Timeline, kind: str, results: Sequence[Result]) -> Iterator[str]:
    promise = fault.promises.of(kind)
    meanwhile = [one for one in results if timeline.began_s <= one.at_s <= timeline.ended_s]
    if not meanwhile:
        yield f"{kind}: nothing was sent during the fault"
        return
    p99_ms = _p99_ms(timeline, results, kind)
    if p99_ms > promise.p99_s * 1000:
        yield f"{kind}: p99 {p99_ms:.0f} ms during the fault"
    done = sum(one.status in (200, 201) for one in meanwhile) / len(meanwhile)
    if done < promise.done:
        yield f"{kind}: only {done:.0%} succeeded during the fault"


def _p99_ms(timeline: Timeline, results: Sequence[Result], kind: str) -> float:
    answered = [one for one in results if one.kind == kind and one.status]
    return percentiles_ms([one.latency_s for one in answered if timeline.began_s <= one.at_s <= timeline.ended_s])[99]


def _first_of_each(lines: Iterable[str]) -> list[str]:
    """Merge lines that differ only in the moment, so that a thousand equal responses are one line and a number."""
    same: dict[str, list[str]] = {}
    for line in lines:
        same.setdefault(line.partition(" at ")[0], []).append(line)
    return [found[0] + (f" (and {len(found) - 1} more)" if len(found) > 1 else "") for found in same.values()]
