"""The judge of notifications in `make faults` sees each promise that is broken, and nothing where all are kept."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from loadtest.driver.generator import Result
from loadtest.faults.notifying import Course, broken_promises, seen
from loadtest.faults.on_notifications import FAULTS
from loadtest.testbed.webhook_receiver import WebhookReceiver

KILLED = next(fault for fault in FAULTS if "channel killed" in fault.name)
REFUSED = next(fault for fault in FAULTS if "410" in fault.name)
FAILING = next(fault for fault in FAULTS if "500" in fault.name)
KEYS = frozenset(f"issuance_issued_{number}" for number in range(1, 5))
DEAD = {"issuance_id": 4, "reason": "answered 410 (permanent)"}


def shop(*accepted: int, failed: int = 0) -> WebhookReceiver:
    made = WebhookReceiver()
    made.accepted = Counter(f"issuance_issued_{number}" for number in accepted)
    made.failed = failed
    return made


def attempt(status: int = 201, latency_s: float = 0.1) -> Result:
    return Result(at_s=1.0, kind="issue", latency_s=latency_s, status=status, code="", who="kim")


@pytest.fixture
def course() -> Course:
    return Course([attempt()], told_s=3.0, heal_s=60.0, shop=shop(1, 2, 3, 4, 4), keys=KEYS)


def test_nothing_is_broken_where_all_are_told_and_a_repeat_counts_once(course: Course) -> None:
    assert not list(broken_promises(KILLED, course))
    assert seen(course) == "4 issued, 4 told, 1 repeats, all after 3.0 s"


def test_what_is_refused_for_good_is_told_as_a_dead_letter(course: Course) -> None:
    assert not list(broken_promises(REFUSED, replace(course, shop=shop(1, 2, 3, failed=1), dead=[DEAD])))


def test_each_broken_promise_is_seen(course: Course) -> None:
    wrong = [
        (KILLED, replace(course, results=[attempt(503)]), "attempts to issue were answered [503]"),
        (KILLED, replace(course, results=[attempt(latency_s=1.6)]), "an attempt to issue took 1.60 s"),
        (KILLED, replace(course, shop=shop(1, 2, 3)), "1 of 4 were not told"),
        (KILLED, replace(course, told_s=None), "after 60 s something still waited"),
        (KILLED, replace(course, shop=shop(1, 2, 3, 4, 5)), "1 events of nothing that was issued"),
        (KILLED, replace(course, dead=[DEAD]), "1 dead letters without a cause, such as: answered 410 (permanent)"),
        (
            REFUSED,
            replace(course, shop=shop(1, 2, 3, failed=2), dead=[DEAD]),
            "2 were refused for good, and 1 are dead letters",
        ),
        (FAILING, course, "the fault has not reached the shop, since it refused nothing"),
    ]
    assert [list(broken_promises(fault, seen)) for fault, seen, _ in wrong] == [[told] for *_, told in wrong]
