"""The issue statement, one caller at a time: every outcome, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from couponapp.issuing.codes import ALPHABET
from couponapp.issuing.statement import Outcome, issue
from couponapp.operating.verify import verify
from couponapp.planning import coupons
from couponapp.storage import migrations
from couponapp.storage.pool import Pool
from tests.support.servers import own_postgres

NewCoupon = Callable[..., int]


def remaining(pool: Pool, coupon_id: int) -> int:
    return int(coupons.show(pool, coupon_id)["remaining"])


def test_issue_takes_a_piece_records_the_issuance_and_leaves_an_outbox_row(pool: Pool, new_coupon: NewCoupon) -> None:
    coupon_id = new_coupon(total=3)
    attempt = issue(pool, coupon_id, "kim")
    assert attempt.outcome is Outcome.ISSUED
    assert attempt.issuance is not None
    assert (coupon_id, "kim") == (attempt.issuance.coupon_id, attempt.issuance.user_id)
    assert remaining(pool, coupon_id) == 2
    row = pool.fetch_one("SELECT issuance_id, kind, sent_at FROM outbox")
    assert row == {"issuance_id": attempt.issuance.id, "kind": "issuance.issued", "sent_at": None}
    assert verify(pool).clean


def test_the_code_has_at_least_80_bits_of_letters_that_cannot_be_misread(pool: Pool, new_coupon: NewCoupon) -> None:
    attempt = issue(pool, new_coupon(), "kim")
    assert attempt.issuance is not None
    letters = attempt.issuance.code.replace("-", "")
    assert set(letters) <= set(ALPHABET)
    assert not set("01OIL") & set(ALPHABET)
    assert len(ALPHABET) ** len(letters) >= 2**80


def test_a_holder_is_told_already_issued_with_the_issuance_even_when_sold_out(
    pool: Pool, new_coupon: NewCoupon
) -> None:
    coupon_id = new_coupon(total=1)
    first = issue(pool, coupon_id, "kim")
    again = issue(pool, coupon_id, "kim")
    assert again.outcome is Outcome.ALREADY_ISSUED
    assert again.issuance == first.issuance
    assert issue(pool, coupon_id, "lee").outcome is Outcome.SOLD_OUT


@pytest.mark.parametrize("change", [coupons.pause, coupons.close])
def test_a_holder_is_told_already_issued_whatever_has_become_of_the_coupon(
    pool: Pool, new_coupon: NewCoupon, change: Callable[[Pool, int], None]
) -> None:
    coupon_id = new_coupon()
    issue(pool, coupon_id, "kim")
    change(pool, coupon_id)
    assert issue(pool, coupon_id, "kim").outcome is Outcome.ALREADY_ISSUED


def test_not_open_tells_when_by_the_databases_clock(pool: Pool, new_coupon: NewCoupon) -> None:
    attempt = issue(pool, new_coupon(opens_in_s=100), "kim")
    assert attempt.outcome is Outcome.NOT_OPEN
    assert attempt.opens_at is not None
    assert 90 < attempt.retry_after_s <= 100


def test_closed_by_time_by_hand_and_before_it_opened(pool: Pool, new_coupon: NewCoupon) -> None:
    ended = new_coupon(opens_in_s=-20, closes_in_s=-10)
    by_hand = new_coupon()
    coupons.close(pool, by_hand)
    never_opened = new_coupon(opens_in_s=100)
    coupons.close(pool, never_opened)
    outcomes = [issue(pool, coupon_id, "kim").outcome for coupon_id in (ended, by_hand, never_opened)]
    assert outcomes == [Outcome.CLOSED] * 3


def test_paused_refuses_and_resumed_issues(pool: Pool, new_coupon: NewCoupon) -> None:
    coupon_id = new_coupon()
    coupons.pause(pool, coupon_id)
    assert issue(pool, coupon_id, "kim").outcome is Outcome.PAUSED
    coupons.resume(pool, coupon_id)
    assert issue(pool, coupon_id, "kim").outcome is Outcome.ISSUED


def test_an_unknown_coupon_is_not_found(pool: Pool) -> None:
    assert issue(pool, 4711, "kim").outcome is Outcome.COUPON_NOT_FOUND


def test_the_same_key_gets_the_first_issuance_again(pool: Pool, new_coupon: NewCoupon) -> None:
    coupon_id = new_coupon()
    first = issue(pool, coupon_id, "kim", "key-1")
    again = issue(pool, coupon_id, "kim", "key-1")
    assert (first.outcome, again.outcome) == (Outcome.ISSUED, Outcome.REPLAYED)
    assert first.issuance == again.issuance
    assert issue(pool, coupon_id, "kim", "key-2").outcome is Outcome.ALREADY_ISSUED


def test_a_key_survives_that_the_coupon_is_closed_meanwhile(pool: Pool, new_coupon: NewCoupon) -> None:
    coupon_id = new_coupon()
    issue(pool, coupon_id, "kim", "key-1")
    coupons.close(pool, coupon_id)
    assert issue(pool, coupon_id, "kim", "key-1").outcome is Outcome.REPLAYED


def test_a_key_belongs_to_its_user_and_its_coupon(pool: Pool, new_coupon: NewCoupon) -> None:
    first, second = new_coupon(), new_coupon()
    issue(pool, first, "kim", "key-1")
    assert issue(pool, second, "kim", "key-1").outcome is Outcome.IDEMPOTENCY_KEY_REUSED
    assert issue(pool, second, "lee", "key-1").outcome is Outcome.ISSUED
    assert remaining(pool, second) == 9


def test_a_key_of_a_refused_attempt_is_free(pool: Pool, new_coupon: NewCoupon) -> None:
    sold_out, other = new_coupon(total=0), new_coupon()
    assert issue(pool, sold_out, "kim", "key-1").outcome is Outcome.SOLD_OUT
    assert issue(pool, other, "kim", "key-1").outcome is Outcome.ISSUED


def refused(pool: Pool, new_coupon: NewCoupon) -> dict[str, tuple[int, str]]:
    """A coupon and a user for each refusal that the snapshot shows."""
    held, paused, closed = new_coupon(), new_coupon(), new_coupon()
    issue(pool, held, "kim")
    coupons.pause(pool, paused)
    coupons.close(pool, closed)
    return {
        "ALREADY_ISSUED": (held, "kim"),
        "SOLD_OUT": (new_coupon(total=0), "kim"),
        "NOT_OPEN": (new_coupon(opens_in_s=60), "kim"),
        "CLOSED": (closed, "kim"),
        "PAUSED": (paused, "kim"),
        "COUPON_NOT_FOUND": (4711, "kim"),
    }


# A row of its own transaction would take an id: this is how one sees that none was taken.
NEXT_TRANSACTION_ID = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text AS id"
WAL_POSITION = "SELECT pg_current_wal_insert_lsn()::text AS at"


@pytest.fixture
def quiet_postgres(tmp_path: Path) -> Iterator[str]:
    """A migrated database on a server in which nobody else writes, not even PostgreSQL itself."""
    options = ("autovacuum=off", "wal_level=minimal", "max_wal_senders=0", "checkpoint_timeout=1h", "fsync=off")
    with own_postgres(tmp_path, *options) as server:
        migrations.migrate(server.url)
        yield server.url


def test_a_refusal_that_the_snapshot_shows_takes_no_transaction_id_and_writes_no_wal(
    make_pool: Callable[..., Pool], quiet_postgres: str
) -> None:
    pool = make_pool(quiet_postgres, size=1)

    def new_coupon(*, total: int = 10, opens_in_s: float = -60.0) -> int:
        return coupons.create(pool, name="쿠폰", total=total, opens_at=opens_in_s, closes_at=3600.0)

    cases = refused(pool, new_coupon)
    for outcome, (coupon_id, user) in cases.items():
        issue(pool, coupon_id, user)  # reading hint bits and caches once is not what is measured
        before = pool.fetch_one(NEXT_TRANSACTION_ID), pool.fetch_one(WAL_POSITION)
        assert issue(pool, coupon_id, user).outcome == outcome
        assert before == (pool.fetch_one(NEXT_TRANSACTION_ID), pool.fetch_one(WAL_POSITION)), outcome
    # The negative control: an attempt that issues does both.
    before = pool.fetch_one(NEXT_TRANSACTION_ID), pool.fetch_one(WAL_POSITION)
    assert issue(pool, new_coupon(), "park").outcome is Outcome.ISSUED
    assert before[0] != pool.fetch_one(NEXT_TRANSACTION_ID)
    assert before[1] != pool.fetch_one(WAL_POSITION)
