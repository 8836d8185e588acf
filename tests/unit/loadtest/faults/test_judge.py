"""The judge of `make faults` reports each broken promise, and nothing where all are kept."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from itertools import chain

import pytest

from loadtest.driver.generator import Result
from loadtest.faults.fault import (
    CIRCUIT_CLOSES_S,
    ISSUE,
    LOOK_UP,
    MINE,
    POOLS_HEAL_S,
    Fault,
    Lost,
    Promise,
    Promises,
    Shows,
    answers,
)
from loadtest.faults.judge import Timeline, broken_answers, shown_issued

TIMELINE = Timeline(began_s=2.0, ended_s=5.0)
PROMISES = Promises("503", answers(201, 503))
FAULT = Fault("", lambda _: nullcontext(), PROMISES)
OK = {ISSUE: 201, LOOK_UP: 200, MINE: 200}


def promising(**promises: Promise | Shows) -> Fault:
    return replace(FAULT, promises=replace(PROMISES, **promises))  # type: ignore[arg-type]  # the names are the fields'


def result(at_s: float, *, kind: str = ISSUE, status: int = 201, latency_s: float = 0.01) -> Result:
    retry_after_s = 3 if status in (429, 503) else None
    return Result(at_s, kind, latency_s, status, f"HTTP_{status}", retry_after_s=retry_after_s)


# Ten of each kind per second, all answered well.
GOOD = [result(number / 10, kind=kind, status=OK[kind]) for number in range(150) for kind in OK]


def judged(*more: Result, fault: Fault = FAULT, timeline: Timeline = TIMELINE) -> list[str]:
    return broken_answers(fault, timeline, [*GOOD, *more])


def test_where_all_promises_are_kept_nothing_is_reported() -> None:
    assert judged() == []
    assert judged(*(result(at_s, status=503, latency_s=1.4) for at_s in (1.5, 2.0, 4.9, 6.9))) == []


@pytest.mark.parametrize(
    "wrong",
    [
        result(3.0, status=500),
        result(3.0, status=0),
        result(3.0, status=429),
        result(3.0, status=503, latency_s=1.6),
        replace(result(3.0, status=503), retry_after_s=None),
        result(3.0, kind=MINE, status=503),
        result(1.0, status=503),
        result(0.5, latency_s=1.6),
        result(5.0 + POOLS_HEAL_S + 0.1, status=503),
    ],
    ids=lambda wrong: f"{wrong.kind} {wrong.code} at {wrong.at_s} s after {wrong.latency_s} s",
)
def test_each_wrong_response_is_reported(wrong: Result) -> None:
    assert len(judged(wrong)) == 1


def test_a_circuit_that_has_opened_gives_more_time() -> None:
    late = result(5.0 + POOLS_HEAL_S + 0.1, status=503)
    assert judged(late, timeline=replace(TIMELINE, circuit_opened=True)) == []
    too_late = result(5.0 + CIRCUIT_CLOSES_S + 0.1, status=503)
    assert judged(too_late, timeline=replace(TIMELINE, circuit_opened=True)) != []


def test_look_ups_are_not_behind_the_circuit() -> None:
    fault = promising(mine=answers(200, 503))
    late = result(5.0 + POOLS_HEAL_S + 0.1, kind=MINE, status=503)
    assert judged(replace(late, at_s=5.0 + POOLS_HEAL_S - 0.1), fault=fault) == []
    assert judged(late, fault=fault, timeline=replace(TIMELINE, circuit_opened=True)) != []


def test_slow_look_ups_during_the_fault_are_reported_by_their_p99() -> None:
    slow = [result(3.0, kind=LOOK_UP, status=200, latency_s=0.2) for _ in range(3)]
    assert judged(*slow) == ["look-up: p99 200 ms during the fault"]
    assert judged(*(replace(one, at_s=6.0) for one in slow)) == []


def test_it_is_reported_when_nothing_is_issued_soon_after() -> None:
    dead = [one for one in GOOD if one.kind != ISSUE or one.at_s < 5.0]
    assert any("first 201" in line for line in broken_answers(FAULT, TIMELINE, dead))
    late = [one for one in GOOD if one.kind != ISSUE or not 5.0 <= one.at_s < 5.0 + POOLS_HEAL_S]
    assert any("first 201" in line for line in broken_answers(FAULT, TIMELINE, late))


def test_too_few_successes_during_the_fault_are_reported() -> None:
    fault = promising(issue=answers(201, 503, done=0.8))
    assert judged(fault=fault) == []
    refused = [replace(one, status=503, retry_after_s=1) if one.kind == ISSUE else one for one in GOOD]
    meanwhile = [one for one in refused if TIMELINE.began_s <= one.at_s <= TIMELINE.ended_s]
    others = [one for one in GOOD if not TIMELINE.began_s <= one.at_s <= TIMELINE.ended_s]
    assert broken_answers(fault, TIMELINE, list(chain(meanwhile, others))) == [
        "issue: only 0% succeeded during the fault"
    ]


def test_a_fault_that_has_not_reached_the_service_proves_nothing() -> None:
    refused = promising(shows=Shows.REFUSALS)
    assert judged(result(3.0, status=503), fault=refused) == []
    assert judged(fault=refused) == ["the fault has not reached the service: no attempts are refused"]
    early = promising(shows=Shows.NOT_OPEN, issue=answers(201, 409))
    assert judged(replace(result(3.0, status=409), code="NOT_OPEN"), fault=early) == []
    assert judged(result(3.0, status=409), fault=early) != []
    alone = promising(shows=Shows.OWN_COUNTERS)
    assert judged(fault=alone, timeline=replace(TIMELINE, without_redis=True)) == []
    assert judged(fault=alone) != []


@pytest.mark.parametrize(
    ("lost", "at_s", "kind", "allowed"),
    [
        (Lost.NONE, 2.0, ISSUE, False),
        (Lost.UNDER_WAY, 1.9, ISSUE, True),
        (Lost.UNDER_WAY, 4.0, ISSUE, False),
        (Lost.NEWCOMERS, 2.2, ISSUE, False),
        (Lost.NEWCOMERS, 3.0, ISSUE, True),
        (Lost.NEWCOMERS, 5.5, ISSUE, False),
        (Lost.FEW, 3.0, LOOK_UP, True),
        (Lost.FEW, 9.0, LOOK_UP, False),
    ],
)
def test_only_the_allowed_responses_may_be_lost(lost: Lost, at_s: float, kind: str, allowed: bool) -> None:
    fault = replace(FAULT, lost=lost, loses_after_s=0.5)
    assert (judged(result(at_s, kind=kind, status=0, latency_s=0.5), fault=fault) == []) is allowed


def test_many_equal_errors_are_one_line() -> None:
    assert judged(*(result(3.0, status=500) for _ in range(7))) == ["issue: HTTP_500 at +1.0 s (and 6 more)"]


def test_a_user_who_was_shown_two_codes_is_listed_with_both() -> None:
    shown = replace(result(1.0), who="kim", issuance="A")
    refused = replace(result(2.0, status=503), who="lee")
    assert shown_issued([shown, replace(shown, issuance="B"), shown, refused]) == {("kim", "A"), ("kim", "B")}
