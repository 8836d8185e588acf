"""What `make load` plans: the crowd of each scenario, and retries."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from loadtest.driver.generator import Arrival, Result
from loadtest.load import plans
from loadtest.load.plans import Click, Site
from loadtest.load.scenarios import BOT, ISSUE, SCENARIOS

THREEFOLD = SCENARIOS["threefold"]


def test_the_same_seed_plans_the_same_crowd_and_another_seed_another() -> None:
    short = replace(THREEFOLD, seconds=2)
    assert plans.clicks(short, 1) == plans.clicks(short, 1)
    assert plans.clicks(short, 1) != plans.clicks(short, 2)


@pytest.mark.parametrize("name", SCENARIOS)
def test_each_scenario_plans_its_rate_in_order_and_in_its_length(name: str) -> None:
    scenario = replace(SCENARIOS[name], seconds=12)
    planned = plans.clicks(scenario, 1)
    moments = [click.at_s for click in planned]
    assert moments == sorted(moments)
    assert min(moments) >= 0
    assert max(moments) <= scenario.seconds
    expected = scenario.bots_per_s * 12 + sum(
        step.rate_per_s * (step.to_s - step.from_s) for step in plans.steps(scenario)
    )
    assert len(planned) == pytest.approx(expected, rel=0.01)


def test_threefold_is_five_hundred_requests_a_second_for_a_minute() -> None:
    planned = plans.clicks(THREEFOLD, 1)
    assert len(planned) == 30_000
    assert Counter(click.kind for click in planned)[ISSUE] == pytest.approx(21_000, rel=0.05)


def test_a_surge_has_most_of_its_clicks_within_three_seconds_of_the_opening() -> None:
    opening = SCENARIOS["opening"]
    moments = [click.at_s - opening.opens_at_s for click in plans.clicks(opening, 1)]
    assert sum(1 for at_s in moments if -0.5 <= at_s <= 3) > len(moments) / 2
    assert any(at_s < -1 for at_s in moments)


def test_steps_rise_to_the_full_rate_which_holds_for_half_of_the_run() -> None:
    rates = [step.rate_per_s for step in plans.steps(SCENARIOS["tenfold"])]
    last = plans.steps(SCENARIOS["tenfold"])[-1]
    assert rates == sorted(rates)
    assert (last.from_s, last.to_s) == pytest.approx((30, 60))


def test_a_hundred_bots_come_in_addition_to_the_users() -> None:
    planned = plans.clicks(SCENARIOS["bot"], 1)
    assert len({click.user for click in planned if click.kind == BOT}) == 100
    assert all(click.user.startswith("bot-") == (click.kind == BOT) for click in planned)


@pytest.mark.parametrize("kind", sorted({kind for one in SCENARIOS.values() for kind in one.mix} | {BOT}))
def test_every_kind_has_a_request(kind: str) -> None:
    sent = plans.arrival(Click(1.5, kind, "kim"), Site(80, 7, "shop.example"), "the-token", THREEFOLD)
    assert (sent.at_s, sent.kind, sent.who) == (1.5, kind, "kim")
    assert b"Host: shop.example\r\n" in sent.request
    assert sent.request.endswith(b"\r\n\r\n")


def refused(arrival: Arrival, status: int, code: str) -> Result:
    return Result(arrival.at_s, arrival.kind, 0.2, status, code, attempt=arrival.attempt)


def test_an_impatient_user_retries_after_503_429_and_no_response_but_not_for_ever() -> None:
    storm = SCENARIOS["retry-storm"]
    again = plans.impatience(storm, 1)
    first = plans.arrival(Click(3.0, ISSUE, "kim"), Site(80, 7), "token", storm)
    assert b"Idempotency-Key: " in first.request
    for status, code in ((503, "SERVICE_UNAVAILABLE"), (429, "TOO_MANY_REQUESTS"), (0, "GAVE_UP"), (0, "NO_ANSWER")):
        arrival, asked = first, 0
        while (retry := again(arrival, refused(arrival, status, code))) is not None:
            assert retry.at_s > arrival.at_s + 0.2
            arrival, asked = retry, asked + 1
        assert asked == storm.tries - 1
    assert again(first, refused(first, 409, "SOLD_OUT")) is None
    assert plans.impatience(THREEFOLD, 1)(first, refused(first, 503, "SERVICE_UNAVAILABLE")) is None
