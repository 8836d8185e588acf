"""The judge of notifications in `make faults` reports each broken promise, and nothing where all are kept."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from loadtest.driver.generator import Result
from loadtest.faults.notifying import Deliveries, broken_promises, seen
from loadtest.faults.on_notifications import FAULTS
from loadtest.testbed.webhook_receiver import WebhookReceiver

KILLED = next(fault for fault in FAULTS if "channel killed" in fault.name)
REFUSED = next(fault for fault in FAULTS if "410" in fault.name)
FAILING = next(fault for fault in FAULTS if "500" in fault.name)
KEYS = frozenset(f"issuance_issued_{number}" for number in range(1, 5))
DEAD = {"issuance_id": 4, "reason": "answered 410 (permanent)"}


def receiver(*accepted: int, failed: int = 0) -> WebhookReceiver:
    made = WebhookReceiver()
    made.accepted = Counter(f"issuance_issued_{number}" for number in accepted)
    made.failed = failed
    return made


def attempt(status: int = 201, latency_s: float = 0.1) -> Result:
    return Result(at_s=1.0, kind="issue", latency_s=latency_s, status=status, code="", who="kim")


@pytest.fixture
def deliveries() -> Deliveries:
    return Deliveries([attempt()], done_s=3.0, heal_s=60.0, receiver=receiver(1, 2, 3, 4, 4), keys=KEYS)


def test_nothing_is_broken_where_all_are_delivered_and_a_repeat_counts_once(deliveries: Deliveries) -> None:
    assert not list(broken_promises(KILLED, deliveries))
    assert seen(deliveries) == "4 issued, 4 delivered, 1 repeats, all after 3.0 s"


def test_an_event_that_is_refused_for_good_is_expected_as_a_dead_letter(deliveries: Deliveries) -> None:
    refused = replace(deliveries, receiver=receiver(1, 2, 3, failed=1), dead=[DEAD])
    assert not list(broken_promises(REFUSED, refused))


def test_each_broken_promise_is_reported(deliveries: Deliveries) -> None:
    wrong = [
        (KILLED, replace(deliveries, results=[attempt(503)]), "attempts to issue got [503]"),
        (KILLED, replace(deliveries, results=[attempt(latency_s=1.6)]), "an attempt to issue took 1.60 s"),
        (KILLED, replace(deliveries, receiver=receiver(1, 2, 3)), "1 of 4 were not delivered"),
        (KILLED, replace(deliveries, done_s=None), "after 60 s something still waited"),
        (KILLED, replace(deliveries, receiver=receiver(1, 2, 3, 4, 5)), "1 events without an issuance"),
        (KILLED, replace(deliveries, dead=[DEAD]), "1 dead letters without a cause, such as: answered 410 (permanent)"),
        (
            REFUSED,
            replace(deliveries, receiver=receiver(1, 2, 3, failed=2), dead=[DEAD]),
            "2 were refused for good, and 1 are dead letters",
        ),
        (FAILING, deliveries, "the fault has not reached the receiver: it refused nothing"),
    ]
    assert [list(broken_promises(fault, seen)) for fault, seen, _ in wrong] == [[line] for *_, line in wrong]
