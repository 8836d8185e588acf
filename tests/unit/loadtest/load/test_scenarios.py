"""The scenarios are consistent: each can be planned, and promises what it can show."""

from __future__ import annotations

import pytest

from couponapp.config import settings
from loadtest.load.options import MAX_REQUESTS
from loadtest.load.scenarios import BOT, DEFAULT, ISSUE, REQUESTS, SCENARIOS, SHARES, STEPS, SURGE, Scenario

EACH = pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=lambda one: str(one.name))


@EACH
def test_a_scenario_sends_attempts_of_known_kinds_and_no_more_than_a_run_may(scenario: Scenario) -> None:
    assert set(scenario.mix) <= set(REQUESTS) - {BOT}
    assert scenario.mix[ISSUE] > 0
    assert (scenario.rate_per_s + scenario.bots_per_s) * scenario.seconds * scenario.tries <= MAX_REQUESTS
    assert bool(scenario.bots) == bool(scenario.bots_per_s)
    assert (scenario.patience_s is None) == (scenario.tries == 1)


@EACH
def test_a_scenario_changes_only_settings_that_there_are_to_values_that_they_take(scenario: Scenario) -> None:
    settings.load(dict(scenario.environ))
    assert set(scenario.environ) <= {str(spec.metadata["env"]) for spec in settings.specs()}


@EACH
def test_a_scenario_promises_nothing_that_it_cannot_show(scenario: Scenario) -> None:
    promises = scenario.promises
    assert promises.opens_on_time <= (scenario.shape == SURGE and 0 < scenario.opens_at_s < scenario.seconds)
    assert promises.spares_others <= bool(scenario.bots)
    assert (promises.past_limits is not None) <= bool(scenario.bots)
    attempts = scenario.rate_per_s * scenario.seconds * scenario.mix[ISSUE] / sum(scenario.mix.values())
    assert not promises.sells_out or attempts > scenario.stock


def test_the_steps_end_at_the_full_rate_and_fill_the_run() -> None:
    assert SHARES[-1][0] == 1.0
    assert sum(length for _, length in SHARES) == pytest.approx(1.0)
    assert any(scenario.shape == STEPS for scenario in SCENARIOS.values())


def test_the_default_is_one_of_them_and_each_goes_by_its_name() -> None:
    assert DEFAULT in SCENARIOS
    assert [scenario.name for scenario in SCENARIOS.values()] == list(SCENARIOS)
