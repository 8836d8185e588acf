"""What operators can do about dead letters."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from click.testing import Result
from flask import Flask
from redis import Redis

from couponapp.errors import ChannelFailed
from couponapp.notifying import dead_letters, deliveries, jobs, outbox
from couponapp.notifying.relay import Relay
from couponapp.operating.verify import verify
from couponapp.storage.pool import Pool
from tests.support.notifying import MAKE_ALL_DUE, ScriptedChannel, count, delivery_rows, issue_to, run_jobs, temporary
from tests.support.servers import wait_until

NewCoupon = Callable[..., int]


@pytest.fixture
def channel() -> ScriptedChannel:
    return ScriptedChannel()


@pytest.fixture
def flask(app: Flask, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs `flask notifications …`."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> Result:
        from couponapp.cli.notifications import notification_commands

        return app.test_cli_runner().invoke(notification_commands, arguments)

    return run


def make_dead_letters(pool: Pool, coupon_id: int, users: Sequence[str], channel: ScriptedChannel, redis: Redis) -> None:
    issue_to(pool, coupon_id, *users)
    for user in users:
        channel.fail(user, ChannelFailed("no such address", permanent=True))
    Relay(pool, redis, lease_s=60).hand_over()
    run_jobs(jobs.ChannelSender(pool, channel), redis)


def test_dead_letters_are_shown_with_their_reasons_and_retried_with_all_their_tries(
    pool: Pool, new_coupon: NewCoupon, channel: ScriptedChannel, redis: Redis, flask: Callable[..., Result]
) -> None:
    assert flask("dead").output == "no dead letters\n"
    make_dead_letters(pool, new_coupon(), ["kim", "lee"], channel, redis)
    shown = json.loads(flask("dead", "--json").output)
    assert [(one["user_id"], one["reason"]) for one in shown] == [
        ("kim", "no such address (permanent)"),
        ("lee", "no such address (permanent)"),
    ]
    assert "no such address (permanent)" in flask("dead").output
    assert flask("retry", str(shown[0]["id"])).output == "1 will be tried again\n"
    assert json.loads(flask("retry", "--all", "--json").output) == {"retried": 1}
    assert [(row["tries"], row["failures"]) for row in delivery_rows(pool)] == [(0, 0), (0, 0)]
    Relay(pool, redis, lease_s=60).hand_over()
    run_jobs(jobs.ChannelSender(pool, channel), redis)
    assert channel.sent == {"kim": 1, "lee": 1}


def test_an_id_without_a_dead_letter_is_refused_and_nothing_is_retried(
    pool: Pool, new_coupon: NewCoupon, channel: ScriptedChannel, redis: Redis, flask: Callable[..., Result]
) -> None:
    make_dead_letters(pool, new_coupon(), ["kim"], channel, redis)
    (letter,) = dead_letters.oldest(pool, limit=10)
    refused = flask("retry", str(letter["id"]), "4711")
    assert (refused.exit_code, refused.output) == (1, "Error: no dead letter has the id 4711\n")
    assert count(pool, "dead_at IS NOT NULL") == 1
    assert flask("retry").exit_code == flask("retry", "--all", "1").exit_code == 2


def test_a_dropped_dead_letter_is_gone_and_does_not_count_as_sent(
    pool: Pool, new_coupon: NewCoupon, channel: ScriptedChannel, redis: Redis, flask: Callable[..., Result]
) -> None:
    coupon_id = new_coupon()
    make_dead_letters(pool, coupon_id, ["kim", "lee", "park"], channel, redis)
    letter = dead_letters.oldest(pool, limit=10)[0]
    refused = flask("drop", str(letter["id"]), "4711")
    assert (refused.exit_code, refused.output) == (1, "Error: no dead letter has the id 4711\n")
    assert count(pool, "dead_at IS NOT NULL") == 3
    assert flask("drop", str(letter["id"])).output == "1 given up\n"
    assert {one["user_id"] for one in dead_letters.oldest(pool, limit=10)} == {"lee", "park"}
    assert json.loads(flask("drop", "--all", "--json").output) == {"dropped": 2}
    assert flask("dead").output == "no dead letters\n"
    assert flask("drop").exit_code == flask("drop", "--all", "1").exit_code == 2
    counts = verify(pool, coupon_id).coupons[0]
    assert (counts["notified"], counts["waiting"]) == (0, 3)


def test_a_notification_that_another_channel_accepted_is_sent_when_its_dead_letter_is_dropped(
    pool: Pool, new_coupon: NewCoupon, redis: Redis
) -> None:
    coupon_id = new_coupon()
    issue_to(pool, coupon_id, "early", "late")
    first, second = ScriptedChannel("file"), ScriptedChannel("other")
    for user in ("early", "late"):
        second.fail(user, ChannelFailed("never", permanent=True))
    first.fail("late", *temporary())
    relay = Relay(pool, redis, lease_s=60, channels=("file", "other"))
    relay.hand_over()
    for channel in (first, second):
        run_jobs(jobs.ChannelSender(pool, channel), redis)
    assert dead_letters.drop(pool, None) == 2
    assert verify(pool, coupon_id).coupons[0]["notified"] == 1
    pool.execute(MAKE_ALL_DUE)
    relay.hand_over()
    run_jobs(jobs.ChannelSender(pool, first), redis)
    assert verify(pool, coupon_id).coupons[0]["notified"] == 2


def test_dropping_waits_for_a_channel_that_is_accepting_the_notification(pool: Pool, new_coupon: NewCoupon) -> None:
    issue_to(pool, new_coupon(), "kim")
    outbox.fan_out(pool, ("file", "other"), limit=10, give_up_s=60)
    (outbox_id,) = {row["outbox_id"] for row in delivery_rows(pool)}
    pool.execute("UPDATE deliveries SET dead_at = now() WHERE channel = 'other'")
    with ThreadPoolExecutor(1) as executor:
        with pool.connection() as connection, connection.transaction():
            connection.execute(deliveries.MARK_SENT, {"channel": "file", "ids": [outbox_id]})
            dropping = executor.submit(dead_letters.drop, pool, [outbox_id])
            blocked = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            wait_until(lambda: pool.fetch_all(blocked) or dropping.done(), timeout_s=20, what="the drop waits")
        assert dropping.result(20) == 1
    (row,) = pool.fetch_all("SELECT channels_left, sent_at FROM outbox")
    assert row["channels_left"] == 0
    assert row["sent_at"] is not None
