"""What was promised, held against what was seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from couponapp.operating.verify import verify
from couponapp.storage.pool import Pool, Timeouts
from loadtest.driver.generator import Result
from loadtest.faults.fault import BOUND_S, CIRCUIT_CLOSES_S, ISSUE, LOOK_UP, MINE, Fault, Lost, Shows
from loadtest.load.report import percentiles_ms

KINDS = (ISSUE, LOOK_UP, MINE)
# A user and the code of the coupon.
Told = tuple[str, str]
# What was under way when a process died was sent at most so long before.
UNDER_WAY_S = BOUND_S
# A request may leave so much later than planned.
PLANNED_S = 0.1


@dataclass(frozen=True)
class Course:
    """When things happened, in seconds of the load's clock.

    Attributes:
        began_s: just before the fault.
        ended_s: when all that it had broken was whole again, as far as it is not ours to mend.
        circuit_opened: in any web process.
        without_redis: some web process has counted its limits by itself.
    """

    began_s: float
    ended_s: float
    circuit_opened: bool = False
    without_redis: bool = False

    def back_s(self, fault: Fault, kind: str) -> float:
        """How long after the fault this kind may still show traces of it. Only attempts are behind the circuit."""
        return CIRCUIT_CLOSES_S if self.circuit_opened and kind == ISSUE else fault.back_s

    def touches(self, fault: Fault, result: Result) -> bool:
        """The request was under way, or came, between the fault and the end of its traces."""
        return result.answered_s >= self.began_s and result.at_s <= self.ended_s + self.back_s(fault, result.kind)


def broken_answers(fault: Fault, course: Course, results: Sequence[Result]) -> list[str]:
    """Every promise about the answers that was not kept."""
    broken: list[str] = []
    for result in results:
        broken += _wrong(fault, course, result)
    for kind in KINDS:
        broken += _wrong_as_a_whole(fault, course, kind, [one for one in results if one.kind == kind])
    back_s = first_issued_s(course, results)
    if back_s is None or back_s > course.back_s(fault, ISSUE):
        broken.append(f"the first 201 came {'never' if back_s is None else f'{back_s:.1f} s'} after the fault")
    if not _has_shown(fault, course, results):
        broken.append(f"the fault has not reached the service, since {fault.shows.value.replace('some', 'no', 1)}")
    return _first_of_each(broken)


def told_issued(results: Iterable[Result]) -> set[Told]:
    """Who was told `ISSUED`, with the code that came with it; two codes are told of twice."""
    return {(one.who, one.issuance) for one in results if one.status == 201}


def broken_records(url: str, told: set[Told]) -> list[str]:
    """Every invariant that does not hold, and who was told «issued», or a code, without a record of it.

    Args:
        url: PostgreSQL's address.
        told: see `told_issued`.
    """
    pool = Pool(url, name="judge", max_size=1, timeouts=Timeouts.within(20_000))
    try:
        broken = verify(pool).violations
        recorded = {row["user_id"]: row["code"] for row in pool.fetch_all("SELECT user_id, code FROM issuances")}
    finally:
        pool.close()
    if missing := {user for user, _ in told if user not in recorded}:
        broken.append(f"{len(missing)} were told ISSUED and are not recorded")
    if other := {user for user, code in told if recorded.get(user, code) != code}:
        broken.append(f"{len(other)} were told another code than is recorded")
    return broken


def first_issued_s(course: Course, results: Sequence[Result]) -> float | None:
    """How long after the fault's end the first attempt made since then was told «issued»."""
    issued_s = [one.answered_s for one in results if one.status == 201 and one.at_s >= course.ended_s]
    return min(issued_s) - course.ended_s if issued_s else None


def seen(fault: Fault, course: Course, results: Sequence[Result]) -> str:
    """What was measured, in short; `bound` says what it may be."""
    codes = Counter(one.code for one in results if one.kind == ISSUE and course.touches(fault, one))
    slowest_s = max(
        (one.latency_s for one in results if one.status and fault.promise(one.kind).bound_s == BOUND_S), default=0.0
    )
    p99s = "/".join(f"{_p99_ms(course, results, kind):.0f}" for kind in (LOOK_UP, MINE))
    back_s = first_issued_s(course, results)
    parts = [
        *(f"{count} {code}" for code, count in codes.most_common()),
        f"slowest {slowest_s:.2f} s",
        f"reads p99 {p99s} ms",
        f"201 after {'-' if back_s is None else f'{back_s:.1f}'} s",
        *(["circuit opened"] if course.circuit_opened else []),
        *(["own counters"] if course.without_redis else []),
    ]
    return ", ".join(parts)


def bound(fault: Fault, course: Course) -> str:
    """The bounds of what `seen` tells, in the same order."""
    p99s = "/".join(f"{1000 * fault.promise(kind).p99_s:.0f}" for kind in (LOOK_UP, MINE))
    return f"{BOUND_S} s, {p99s} ms, {course.back_s(fault, ISSUE):.0f} s"


def _wrong(fault: Fault, course: Course, result: Result) -> Iterator[str]:
    usual = 201 if result.kind == ISSUE else 200
    promise = fault.promise(result.kind)
    what = f"{result.kind}: {result.code} at {result.at_s - course.began_s:+.1f} s"
    if not result.status:
        if not _may_be_lost(fault, course, result):
            yield what
        return
    if result.status != usual and not (course.touches(fault, result) and result.status in promise.statuses):
        yield what
    if result.status in (429, 503) and not result.retry_after_s:
        yield f"{what}: without Retry-After"
    # Without a fault at work no kind has a bound of its own.
    bound_s = promise.bound_s if course.touches(fault, result) else BOUND_S
    if result.latency_s > bound_s:
        yield f"{result.kind}: late at {result.at_s - course.began_s:+.1f} s: {result.latency_s:.2f} s"


def _has_shown(fault: Fault, course: Course, results: Sequence[Result]) -> bool:
    match fault.shows:
        case Shows.NOTHING:
            return True
        case Shows.REFUSALS:
            return any(one.kind == ISSUE and one.status == 503 and course.touches(fault, one) for one in results)
        case Shows.NOT_OPEN:
            return any(one.kind == ISSUE and one.code == "NOT_OPEN" and course.touches(fault, one) for one in results)
        case Shows.OWN_COUNTERS:
            return course.without_redis


def _may_be_lost(fault: Fault, course: Course, result: Result) -> bool:
    match fault.lost:
        case Lost.NONE:
            return False
        case Lost.UNDER_WAY:
            return abs(result.at_s - course.began_s) <= UNDER_WAY_S
        case Lost.NEWCOMERS:
            return course.began_s + fault.loses_after_s - PLANNED_S <= result.at_s <= course.ended_s
        case Lost.FEW:
            return course.touches(fault, result)


def _wrong_as_a_whole(fault: Fault, course: Course, kind: str, results: Sequence[Result]) -> Iterator[str]:
    promise = fault.promise(kind)
    meanwhile = [one for one in results if course.began_s <= one.at_s <= course.ended_s]
    if not meanwhile:
        yield f"{kind}: nothing was sent during the fault"
        return
    p99_ms = _p99_ms(course, results, kind)
    if p99_ms > promise.p99_s * 1000:
        yield f"{kind}: p99 {p99_ms:.0f} ms during the fault"
    done = sum(one.status in (200, 201) for one in meanwhile) / len(meanwhile)
    if done < promise.done:
        yield f"{kind}: only {done:.0%} succeeded during the fault"


def _p99_ms(course: Course, results: Sequence[Result], kind: str) -> float:
    answered = [one for one in results if one.kind == kind and one.status]
    return percentiles_ms([one.latency_s for one in answered if course.began_s <= one.at_s <= course.ended_s])[99]


def _first_of_each(lines: Iterable[str]) -> list[str]:
    # By what is wrong, not by when: a thousand equal answers are one line and their number.
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for line in lines:
        what = line.partition(" at ")[0]
        first.setdefault(what, line)
        counts[what] += 1
    return [line + (f" (and {counts[what] - 1} more)" if counts[what] > 1 else "") for what, line in first.items()]
