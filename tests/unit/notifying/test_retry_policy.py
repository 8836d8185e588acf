"""What follows a try that ended with an error: another one after a growing delay, or a dead letter."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from couponapp.errors import ChannelFailed
from couponapp.notifying.deliveries import ClaimedDelivery, Failure
from couponapp.notifying.retry_policy import (
    FIRST_DELAY_S,
    MAX_CRASHES,
    MAX_DELAY_S,
    MAX_REASON,
    after_failure,
    poisoned,
)
from tests.support.notification import NOTIFICATION

FIRST = ClaimedDelivery(NOTIFICATION, 1, 0, due_at=datetime(2026, 11, 23, tzinfo=UTC), left_s=30.0, given_up=False)
NOT_NOW = ChannelFailed("not now")


def failed(failures: int, error: ChannelFailed = NOT_NOW, *, tries: int = 2_000, given_up: bool = False) -> Failure:
    one = replace(FIRST, tries=failures + 1, failures=failures, given_up=given_up)
    return after_failure(one, error, "email", tries=tries)


@pytest.mark.parametrize("failures", [0, 1, 5, 10, 11, 20, 1_000])
def test_a_delay_doubles_with_each_failure_up_to_an_hour_and_is_shortened_by_half_at_most(failures: int) -> None:
    longest_s = min(FIRST_DELAY_S * 2**failures, MAX_DELAY_S)
    delays_s = [delay_s for _ in range(200) if (delay_s := failed(failures).delay_s) is not None]
    assert len(set(delays_s)) > 100  # deliveries that failed together do not come back together
    assert longest_s / 2 <= min(delays_s) < 0.6 * longest_s
    assert 0.9 * longest_s < max(delays_s) <= longest_s


def test_a_receiver_can_ask_for_a_longer_delay_but_not_for_a_shorter_one_or_for_more_than_an_hour() -> None:
    assert failed(0, ChannelFailed("busy", retry_after_s=60.0)).delay_s == 60.0
    assert failed(0, ChannelFailed("busy", retry_after_s=3e7)).delay_s == MAX_DELAY_S
    shorter = failed(8, ChannelFailed("busy", retry_after_s=0.1)).delay_s
    assert shorter is not None
    assert shorter >= FIRST_DELAY_S * 2**7


def test_the_last_try_that_is_allowed_is_the_last_one() -> None:
    assert failed(1, tries=3).delay_s is not None
    assert failed(2, tries=3) == Failure(NOTIFICATION.outbox_id, "not now (3 tries)", None)


def test_a_failure_that_will_not_pass_or_comes_too_late_is_final_at_the_first_try() -> None:
    gone = ChannelFailed("no such address", permanent=True, retry_after_s=60.0)
    assert failed(0, gone) == Failure(NOTIFICATION.outbox_id, "no such address (permanent)", None)
    assert failed(0, given_up=True) == Failure(NOTIFICATION.outbox_id, "not now (its time is over)", None)


def test_a_long_reason_is_cut_but_still_says_that_it_was_the_last_try() -> None:
    endless = ChannelFailed("x" * 100_000)
    assert failed(0, endless).reason == "x" * MAX_REASON
    assert failed(2, endless, tries=3).reason == "x" * MAX_REASON + " (3 tries)"


def test_only_tries_that_ended_with_their_process_make_a_delivery_poisonous() -> None:
    def crashed(times: int, failures: int) -> ClaimedDelivery:
        return replace(FIRST, tries=times + failures + 1, failures=failures)

    assert poisoned(crashed(MAX_CRASHES - 1, failures=0), "email") is None
    assert poisoned(crashed(0, failures=1_000), "email") is None
    for failures in (0, 3):
        final = poisoned(crashed(MAX_CRASHES, failures), "email")
        assert final is not None
        assert (final.delay_s, str(MAX_CRASHES) in final.reason) == (None, True)
