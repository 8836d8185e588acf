"""The judge of `make faults` sees each promise that is broken, and nothing where all are kept."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from itertools import chain

import pytest

from loadtest.driver.generator import Result
from loadtest.faults.fault import CIRCUIT_CLOSES_S, ISSUE, LOOK_UP, MINE, POOLS_HEAL_S, Fault, Lost, Shows, answers
from loadtest.faults.judge import Course, broken_answers, told_issued
from loadtest.faults.run import run
from loadtest.faults.verdict import skipped

COURSE = Course(began_s=2.0, ended_s=5.0)
FAULT = Fault(name="", expected="", happens=lambda _: nullcontext(), issue=answers(201, 503))
OK = {ISSUE: 201, LOOK_UP: 200, MINE: 200}


def result(at_s: float, *, kind: str = ISSUE, status: int = 201, latency_s: float = 0.01) -> Result:
    retry_after_s = 3 if status in (429, 503) else None
    return Result(at_s, kind, latency_s, status, f"HTTP_{status}", retry_after_s=retry_after_s)


# Ten of each kind per second, all answered well.
GOOD = [result(number / 10, kind=kind, status=OK[kind]) for number in range(150) for kind in OK]


def judged(*more: Result, fault: Fault = FAULT, course: Course = COURSE) -> list[str]:
    return broken_answers(fault, course, [*GOOD, *more])


def test_where_all_promises_are_kept_nothing_is_told() -> None:
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
def test_each_wrong_answer_is_told(wrong: Result) -> None:
    assert len(judged(wrong)) == 1


def test_a_circuit_that_has_opened_gives_more_time() -> None:
    late = result(5.0 + POOLS_HEAL_S + 0.1, status=503)
    assert judged(late, course=replace(COURSE, circuit_opened=True)) == []
    too_late = result(5.0 + CIRCUIT_CLOSES_S + 0.1, status=503)
    assert judged(too_late, course=replace(COURSE, circuit_opened=True)) != []


def test_look_ups_are_not_behind_the_circuit() -> None:
    fault = replace(FAULT, mine=answers(200, 503))
    late = result(5.0 + POOLS_HEAL_S + 0.1, kind=MINE, status=503)
    assert judged(replace(late, at_s=5.0 + POOLS_HEAL_S - 0.1), fault=fault) == []
    assert judged(late, fault=fault, course=replace(COURSE, circuit_opened=True)) != []


def test_slow_look_ups_during_the_fault_are_told_by_their_p99() -> None:
    slow = [result(3.0, kind=LOOK_UP, status=200, latency_s=0.2) for _ in range(3)]
    assert judged(*slow) == ["look-up: p99 200 ms during the fault"]
    assert judged(*(replace(one, at_s=6.0) for one in slow)) == []


def test_it_is_told_when_nothing_is_issued_soon_after() -> None:
    dead = [one for one in GOOD if one.kind != ISSUE or one.at_s < 5.0]
    assert any("first 201" in line for line in broken_answers(FAULT, COURSE, dead))
    late = [one for one in GOOD if one.kind != ISSUE or not 5.0 <= one.at_s < 5.0 + POOLS_HEAL_S]
    assert any("first 201" in line for line in broken_answers(FAULT, COURSE, late))


def test_too_little_done_beside_the_fault_is_told() -> None:
    fault = replace(FAULT, issue=answers(201, 503, done=0.8))
    assert judged(fault=fault) == []
    refused = [replace(one, status=503, retry_after_s=1) if one.kind == ISSUE else one for one in GOOD]
    meanwhile = [one for one in refused if COURSE.began_s <= one.at_s <= COURSE.ended_s]
    others = [one for one in GOOD if not COURSE.began_s <= one.at_s <= COURSE.ended_s]
    assert broken_answers(fault, COURSE, list(chain(meanwhile, others))) == [
        "issue: only 0% succeeded during the fault"
    ]


def test_a_fault_that_has_not_reached_the_service_proves_nothing() -> None:
    refused = replace(FAULT, shows=Shows.REFUSALS)
    assert judged(result(3.0, status=503), fault=refused) == []
    assert judged(fault=refused) != []
    early = replace(FAULT, shows=Shows.NOT_OPEN, issue=answers(201, 409))
    assert judged(replace(result(3.0, status=409), code="NOT_OPEN"), fault=early) == []
    assert judged(result(3.0, status=409), fault=early) != []
    alone = replace(FAULT, shows=Shows.OWN_COUNTERS)
    assert judged(fault=alone, course=replace(COURSE, without_redis=True)) == []
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
def test_only_what_may_be_lost_may_be_lost(lost: Lost, at_s: float, kind: str, allowed: bool) -> None:
    fault = replace(FAULT, lost=lost, loses_after_s=0.5)
    assert (judged(result(at_s, kind=kind, status=0, latency_s=0.5), fault=fault) == []) is allowed


def test_many_equal_wrongs_are_one_line() -> None:
    assert judged(*(result(3.0, status=500) for _ in range(7))) == ["issue: HTTP_500 at +1.0 s (and 6 more)"]


def test_who_was_told_two_codes_is_told_of_twice() -> None:
    told = replace(result(1.0), who="kim", issuance="A")
    refused = replace(result(2.0, status=503), who="lee")
    assert told_issued([told, replace(told, issuance="B"), told, refused]) == {("kim", "A"), ("kim", "B")}


def test_what_cannot_be_run_is_skipped_with_a_word_but_not_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    verdict = skipped("disk full", "503", "needs a C compiler")
    assert (verdict.word, verdict.broken) == ("skipped", [])
    assert "needs a C compiler" in verdict.tell()
    monkeypatch.setenv("CI", "true")
    assert skipped("disk full", "503", "needs a C compiler").word == "BROKEN"


def test_a_fault_is_not_run_where_the_machine_lacks_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    verdict = run(replace(FAULT, lacks=lambda: "PgBouncer is not installed"))
    assert (verdict.word, verdict.seen) == ("skipped", "PgBouncer is not installed")
