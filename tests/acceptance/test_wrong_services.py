"""The checks of `make load` and `make faults` catch services that are wrong."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from loadtest.faults import on_postgres, on_redis, run
from loadtest.faults.fault import Fault, Shows, Stage
from loadtest.load import run as load_run
from loadtest.load.options import Options
from loadtest.load.promises import judge
from loadtest.load.scenarios import ISSUE, SCENARIOS, Scenario
from loadtest.testbed.service import Service

# Pieces for half of the users, and each user tries more than once.
EVENT = replace(SCENARIOS["incident"], rate_per_s=80.0, seconds=3, stock=40, users=80, mix={ISSUE: 1})
HAMMERED = replace(
    SCENARIOS["bot"], rate_per_s=20.0, seconds=4, stock=1_000, users=50_000, bots=4, bots_per_s=60.0, mix={ISSUE: 1}
)
# How fast this machine is does not matter here, nor what else it does.
OF_SPEED = {"attempts in time", "refusals in time"}
PATIENT = {"COUPON_DEADLINE_MS": "5000", "COUPON_BACKLOG_MS": "60000"}


def broken_promises(scenario: Scenario, *, notified_s: float = 4.0) -> set[str]:
    """Return the promises that a run of `make load` finds broken; the wait for notifications is short."""
    promises = replace(scenario.promises, notified_s=notified_s)
    shorter = replace(with_setting(scenario, **PATIENT), promises=promises)
    made = load_run.on_own_service(Options(shorter, 1, Path(), 1, 1, 64, None))
    checks = judge(shorter, made.results, made.ledger, made.samples)
    return {check.name for check in checks if not check.kept} - OF_SPEED


@pytest.fixture
def put_in_place(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that replaces the service's application."""
    right = Service.start_web

    def put(app: str) -> None:
        monkeypatch.setattr(Service, "start_web", lambda self: right(self, app))

    return put


def with_setting(scenario: Scenario, **environ: str) -> Scenario:
    return replace(scenario, environ={**scenario.environ, **environ})


@pytest.mark.parametrize("scenario", [EVENT, HAMMERED], ids=["event", "bots"])
def test_the_service_as_it_is_keeps_every_promise(scenario: Scenario) -> None:
    assert broken_promises(scenario, notified_s=60.0) == set()


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("takes no piece", "exactly the stock"),
        ("writes no outbox row", "verify"),
    ],
)
def test_a_wrong_statement_breaks_a_promise_of_a_load(
    put_in_place: Callable[[str], None], statement: str, expected: str
) -> None:
    put_in_place("tests.support.wrong_app:app")
    assert expected in broken_promises(with_setting(EVENT, WRONG=statement))


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ({"COUPON_LIMIT_USER": "100000/minute"}, "bots are held back"),
        ({"COUPON_LIMIT_GLOBAL": "20/minute"}, "others are spared"),
    ],
)
def test_a_wrong_limit_breaks_a_promise_of_a_load(rates: dict[str, str], expected: str) -> None:
    assert expected in broken_promises(with_setting(HAMMERED, **rates))


def test_an_outbox_without_a_worker_breaks_a_promise_of_a_load(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Service.start_worker

    def dead(self: Service) -> object:
        worker = right(self)
        worker.end()
        return worker

    monkeypatch.setattr(Service, "start_worker", dead)
    assert broken_promises(EVENT) == {"notified"}


LOCKED, FROZEN = (
    next(fault for fault in faults if fault.name == name)
    for faults, name in ((on_postgres.FAULTS, "stock locked by another session"), (on_redis.FAULTS, "Redis frozen"))
)


@pytest.mark.parametrize(
    ("fault", "without", "expected"),
    [
        (LOCKED, "bounds", "issue"),
        (FROZEN, "redis time-outs", "issue"),
    ],
)
def test_a_service_without_a_guard_is_found_broken_by_its_fault(fault: Fault, without: str, expected: str) -> None:
    def serves(stage: Stage, _: ExitStack) -> int:
        return stage.service.start_web("tests.support.wsgi_unguarded:app", environ={"WITHOUT": without})

    promises = replace(fault.promises, shows=Shows.NOTHING)
    # Shorter, since it need not recover.
    broken = run.run(replace(fault, serves=serves, promises=promises, lasts_s=2.0)).broken
    assert any(line.startswith(expected) for line in broken), broken
