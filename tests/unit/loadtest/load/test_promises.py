"""The verdict of `make load`: a good run passes, and each broken promise is reported by its name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from loadtest.driver.generator import Result
from loadtest.driver.usage import Sample
from loadtest.load.ledger import Ledger
from loadtest.load.promises import judge
from loadtest.load.scenarios import BOT, Promises, Scenario
from tests.support.loadrun import STRICT, good_ledger, good_results, samples


def broken(
    results: list[Result] | None = None,
    ledger: Ledger | None = None,
    seen: list[Sample] | None = None,
    scenario: Scenario = STRICT,
) -> set[str]:
    checks = judge(scenario, results or good_results(), ledger or good_ledger(), seen or samples())
    return {check.name for check in checks if not check.kept}


def test_a_good_run_keeps_every_promise() -> None:
    assert broken() == set()


def with_answer(number: int, **changes: object) -> list[Result]:
    results = good_results()
    results[number] = replace(results[number], **changes)  # type: ignore[arg-type]  # the names are the fields'
    return results


def slow(code: str) -> list[Result]:
    return [replace(result, latency_s=0.4) if result.code == code else result for result in good_results()]


def hammering(attempts: int) -> list[Result]:
    one = replace(good_results()[0], kind=BOT, code="ALREADY_ISSUED", status=409, at_s=20.0, sent_s=20.0)
    return [*good_results(), *[one] * attempts]


def late_collapse() -> list[Result]:
    return [replace(r, code="SERVICE_UNAVAILABLE", status=503) if r.at_s >= 20 else r for r in good_results()]


@pytest.mark.parametrize(
    ("name", "results"),
    [
        ("errors", with_answer(200, code="INTERNAL_ERROR", status=500)),
        ("errors", with_answer(200, code="SERVICE_UNAVAILABLE", status=503)),
        ("errors", with_answer(200, code="NO_ANSWER", status=0)),
        ("errors", with_answer(200, code="NOT_SENT", status=0)),
        ("errors", with_answer(200, code="GAVE_UP", status=0)),
        ("attempts in time", slow("ISSUED")),
        ("refusals in time", slow("SOLD_OUT")),
        ("goodput", late_collapse()),
        ("bots are held back", hammering(3)),
        ("others are spared", with_answer(200, code="TOO_MANY_REQUESTS", status=429)),
        ("one per user", with_answer(200, code="ALREADY_ISSUED", who="user-1", issuance="code-2")),
        ("one user per code", with_answer(200, code="ISSUED", status=201, issuance="code-2")),
        ("never too many", with_answer(200, code="ISSUED", status=201, issuance="code-200")),
        ("what was shown is recorded", with_answer(1, issuance="another")),
        # ALREADY_ISSUED came before the first attempt was sent: each response alone is possible.
        ("history", with_answer(1, code="ALREADY_ISSUED", status=409, at_s=0.0, sent_s=0.0, latency_s=0.0)),
    ],
)
def test_each_wrong_response_breaks_its_promise(name: str, results: list[Result]) -> None:
    assert name in broken(results)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("verify", {"violations": ["coupon 1: the stock is -1"]}),
        ("what was shown is recorded", {"owners": {}}),
        ("exactly the stock", {"issued": 99}),
        ("exactly the stock", {"issued": 101}),
        ("the opening", {"early": 1}),
        ("notified", {"waiting": 1}),
        ("notified", {"slowest_notification_s": 61.0}),
    ],
)
def test_each_wrong_field_of_the_ledger_breaks_its_promise(name: str, change: dict[str, object]) -> None:
    wrong = broken(ledger=replace(good_ledger(), **change))  # type: ignore[arg-type]  # the names are the fields'
    assert wrong - {"history"} == {name}


def test_a_response_may_be_replayed_with_its_key_and_no_other() -> None:
    first = replace(good_results()[1], key="key-of-user-1")
    again = replace(first, code="REPLAYED", at_s=20.0, sent_s=20.0)
    others = good_results()[2:]
    assert broken([good_results()[0], first, *others, again]) == set()
    assert broken([good_results()[0], first, *others, replace(again, key="another")]) == {"history"}
    assert broken([good_results()[0], first, *others, replace(again, code="ISSUED")]) == {"history"}


def test_memory_that_grows_is_reported() -> None:
    assert broken(seen=samples(260_000_000)) == {"memory is flat"}


def test_a_promise_that_a_scenario_does_not_make_is_not_judged() -> None:
    lenient = replace(STRICT, promises=Promises(no_5xx=False, notified_s=None))
    assert broken(late_collapse(), replace(good_ledger(), waiting=9), samples(260_000_000), lenient) == set()
    assert "errors" in broken(with_answer(200, code="INTERNAL_ERROR", status=500), scenario=lenient)


def test_sold_out_while_pieces_are_left_breaks_every_scenario() -> None:
    lenient = replace(STRICT, promises=Promises())
    assert broken(ledger=replace(good_ledger(), issued=99), scenario=lenient) == {"exactly the stock"}


def test_a_bot_may_be_refused_without_breaking_a_promise_to_others() -> None:
    bot = with_answer(200, kind=BOT, code="TOO_MANY_REQUESTS", status=429)
    assert broken(bot) == set()
    assert broken(hammering(2)) == set()


def test_an_impatient_user_may_give_up() -> None:
    storm = replace(STRICT, patience_s=1.0, tries=3)
    assert "errors" not in broken(with_answer(200, code="GAVE_UP", status=0), scenario=storm)
