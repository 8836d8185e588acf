"""Every delivery is in exactly one state, and moves through the states as `couponapp.notifying.state` draws it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest

from couponapp.errors import ConstraintViolated
from couponapp.notifying import dead_letters, deliveries, outbox
from couponapp.notifying.deliveries import Failure
from couponapp.notifying.state import OPEN, DeliveryState
from couponapp.storage.pool import Pool
from tests.support.notifying import MAKE_ALL_DUE, delivery_rows, issue_to

NewCoupon = Callable[..., int]
STATES = "SELECT " + ", ".join(f"{state.value} AS {state.name}" for state in DeliveryState) + " FROM deliveries"
DUE, DEFERRED, SENT, DEAD = DeliveryState


@pytest.fixture
def outbox_id(pool: Pool, new_coupon: NewCoupon) -> int:
    """The outbox id of one delivery."""
    issue_to(pool, new_coupon(), "kim")
    outbox.fan_out(pool, ("file",), limit=10, give_up_s=60)
    return int(delivery_rows(pool)[0]["outbox_id"])


def states(pool: Pool) -> list[DeliveryState]:
    (row,) = pool.fetch_all(STATES)
    return [state for state in DeliveryState if row[state.name.lower()]]


def test_every_row_is_in_the_one_state_that_its_timestamps_say(pool: Pool, outbox_id: int) -> None:
    expected = {
        ("NULL", "NULL", "-1 day"): DUE,
        ("NULL", "NULL", "0"): DUE,
        ("NULL", "NULL", "1 second"): DEFERRED,
        ("NULL", "NULL", "1 day"): DEFERRED,
        **{("now()", "NULL", due_in): SENT for due_in in ("-1 day", "1 day")},
        **{("NULL", "now()", due_in): DEAD for due_in in ("-1 day", "1 day")},
    }
    for ((sent_at, dead_at, due_in), state), (tries, failures) in product(expected.items(), [(0, 0), (1, 0), (3, 3)]):
        pool.execute(
            f"""UPDATE deliveries SET sent_at = {sent_at}, dead_at = {dead_at}, due_at = now() + interval '{due_in}',
                                      tries = {tries}, failures = {failures}"""
        )
        assert states(pool) == [state], (sent_at, dead_at, due_in, tries, failures)
        is_open = pool.fetch_all(f"SELECT FROM deliveries WHERE {OPEN}")
        assert bool(is_open) == (state in {DUE, DEFERRED})


def test_no_row_is_sent_and_dead(pool: Pool, outbox_id: int) -> None:
    with pytest.raises(ConstraintViolated, match="deliveries_sent_or_dead"):
        pool.execute("UPDATE deliveries SET sent_at = now(), dead_at = now()")


def lease(pool: Pool) -> list[int]:
    with pool.connection() as connection, connection.transaction():
        return deliveries.lease(connection, "file", limit=10, lease_s=60).outbox_ids


def test_a_delivery_moves_through_the_states_as_drawn(pool: Pool, outbox_id: int) -> None:
    assert states(pool) == [DUE]
    assert lease(pool) == [outbox_id]
    assert states(pool) == [DEFERRED]  # leased
    deliveries.claim(pool, "file", [outbox_id])
    assert states(pool) == [DEFERRED]  # a try is under way
    deliveries.reschedule(pool, "file", [Failure(outbox_id, "not now", 60.0)])
    assert states(pool) == [DEFERRED]  # waits for its retry
    assert lease(pool) == []
    pool.execute(MAKE_ALL_DUE)
    assert states(pool) == [DUE]
    assert lease(pool) == [outbox_id]
    deliveries.reschedule(pool, "file", [Failure(outbox_id, "never", None)])
    assert states(pool) == [DEAD]
    assert lease(pool) == []
    dead_letters.retry(pool, None, give_up_s=60)
    assert states(pool) == [DUE]
    assert lease(pool) == [outbox_id]
    deliveries.mark_sent(pool, "file", [outbox_id])
    assert states(pool) == [SENT]


def test_a_dropped_dead_letter_leaves_no_delivery(pool: Pool, outbox_id: int) -> None:
    pool.execute("UPDATE deliveries SET dead_at = now()")
    assert dead_letters.drop(pool, [outbox_id]) == 1
    assert delivery_rows(pool) == []
