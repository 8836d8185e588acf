"""A coupon's life, and the check of the invariants."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from couponapp.errors import CouponNotFound, InvalidRequest, RuleViolated
from couponapp.issuing.statement import Outcome, issue
from couponapp.operating.verify import verify
from couponapp.planning import coupons
from couponapp.storage.pool import Pool
from tests.support.servers import wait_until

NewCoupon = Callable[..., int]


def test_create_accepts_absolute_times_and_offsets_from_the_databases_time(pool: Pool) -> None:
    opens_at = datetime(2030, 1, 1, 14, 0, tzinfo=UTC)
    absolute = coupons.create(pool, name="a", total=1, opens_at=opens_at, closes_at=opens_at + timedelta(hours=1))
    relative = coupons.create(pool, name="b", total=1, opens_at=0.0, closes_at=600.0, valid_days=7)
    assert coupons.show(pool, absolute)["opens_at"] == opens_at
    shown = coupons.show(pool, relative)
    assert shown["closes_at"] - shown["opens_at"] == timedelta(minutes=10)
    assert shown["valid_days"] == 7


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"name": ""}, "name"),
        ({"name": "  "}, "name"),
        ({"name": "a" * 201}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"name": "\ud800"}, "name"),
        ({"total": -1}, "total"),
        ({"total": 2**31}, "total"),
        ({"valid_days": 0}, "valid-days"),
        ({"closes_at": -60.0}, "closes-at"),
    ],
)
def test_create_names_the_bad_value(pool: Pool, wrong: dict[str, object], named: str) -> None:
    values: dict[str, object] = {"name": "쿠폰", "total": 1, "opens_at": 0.0, "closes_at": 60.0, **wrong}
    with pytest.raises(InvalidRequest, match=f"^{named}: "):
        coupons.create(pool, **values)  # type: ignore[arg-type]  # wrong on purpose
    assert coupons.list_all(pool) == []


def test_restock_after_sold_out_issues_again(pool: Pool, new_coupon: NewCoupon) -> None:
    coupon_id = new_coupon(total=1)
    issue(pool, coupon_id, "kim")
    assert issue(pool, coupon_id, "lee").outcome is Outcome.SOLD_OUT
    coupons.restock(pool, coupon_id, 1)
    wait_until(lambda: issue(pool, coupon_id, "lee").outcome is Outcome.ISSUED, timeout_s=5, what="it issues again")
    assert coupons.show(pool, coupon_id)["total"] == 2
    assert verify(pool).clean


def test_restock_refuses_bad_numbers_and_changes_nothing(pool: Pool, new_coupon: NewCoupon) -> None:
    coupon_id = new_coupon(total=10)
    for pieces in (0, -1, 2**31, 2**31 - 5):
        with pytest.raises(InvalidRequest, match=r"^pieces: "):
            coupons.restock(pool, coupon_id, pieces)
    coupons.close(pool, coupon_id)
    with pytest.raises(RuleViolated, match="is closed"):
        coupons.restock(pool, coupon_id, 1)
    assert coupons.show(pool, coupon_id)["total"] == 10
    assert verify(pool).clean


def test_a_closed_coupon_stays_closed(pool: Pool, new_coupon: NewCoupon) -> None:
    coupon_id = new_coupon()
    coupons.close(pool, coupon_id)
    coupons.close(pool, coupon_id)
    for change in (coupons.pause, coupons.resume):
        with pytest.raises(RuleViolated, match="is closed"):
            change(pool, coupon_id)


@pytest.mark.parametrize("change", [coupons.pause, coupons.resume, coupons.close, coupons.show, coupons.export])
def test_an_unknown_coupon_is_not_found(pool: Pool, change: Callable[[Pool, int], object]) -> None:
    with pytest.raises(CouponNotFound, match="no coupon 4711"):
        list(change(pool, 4711))  # type: ignore[call-overload]  # export starts when it is asked for its first row


def test_export_reads_every_issuance_in_batches(
    pool: Pool, new_coupon: NewCoupon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coupons, "EXPORT_BATCH", 2)
    coupon_id, other = new_coupon(), new_coupon()
    for user in ("a", "b", "c", "d", "e"):
        issue(pool, coupon_id, user)
    issue(pool, other, "x")
    assert [row["user_id"] for row in coupons.export(pool, coupon_id)] == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("UPDATE coupon_stock SET remaining = remaining + 1", "are not the total of 10"),
        ("UPDATE coupons SET total = total + 1", "are not the total of 11"),
        ("DELETE FROM issuances", "are not the total of 10"),
        ("DELETE FROM outbox", "1 issuances have no outbox row"),
        ("INSERT INTO outbox (kind, issuance_id) VALUES ('issuance.issued', 4711)", "belongs to nothing"),
        ("UPDATE issuances SET coupon_id = 4711", "issuance 1 belongs to nothing"),
        ("DELETE FROM coupon_stock", "there is no stock"),
        (
            "ALTER TABLE issuances DROP CONSTRAINT issuances_one_per_user; UPDATE coupon_stock SET remaining = 8;"
            "INSERT INTO issuances (coupon_id, user_id, code, expires_at)"
            " SELECT coupon_id, user_id, code || 'X', expires_at FROM issuances",
            "2 issued to 1 users",
        ),
    ],
)
def test_verify_finds_each_kind_of_damage(pool: Pool, new_coupon: NewCoupon, damage: str, said: str) -> None:
    issue(pool, new_coupon(), "kim")
    assert verify(pool).clean
    with pool.connection() as connection:
        connection.execute(damage.encode())
    report = verify(pool)
    assert not report.clean
    assert any(said in violation for violation in report.violations), report.violations


def test_verify_of_one_coupon_ignores_the_others(pool: Pool, new_coupon: NewCoupon) -> None:
    fine, damaged = new_coupon(), new_coupon()
    pool.execute("UPDATE coupon_stock SET remaining = 3 WHERE coupon_id = %s", [damaged])
    assert verify(pool, fine).clean
    assert not verify(pool, damaged).clean
    with pytest.raises(CouponNotFound):
        verify(pool, 4711)
