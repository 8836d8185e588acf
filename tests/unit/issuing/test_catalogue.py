"""What a visitor sees of a coupon between two reads."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from couponapp.issuing.catalogue import Coupon, Status


def coupon(*, state: str = "open", remaining: int = 1) -> Coupon:
    opens_at = datetime(2026, 11, 23, 5, 0, tzinfo=UTC)
    return Coupon(
        id=1, name="쿠폰", total=1, remaining=remaining, opens_at=opens_at, closes_at=opens_at + timedelta(hours=1),
        valid_days=30, state=state, read_at=opens_at - timedelta(seconds=10), asked_mono_s=100.0, answered_mono_s=100.5,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("mono_s", "state", "remaining", "expected"),
    [
        (109.9, "open", 1, Status.SCHEDULED),
        (110.0, "open", 1, Status.OPEN),
        (110.0, "open", 0, Status.SOLD_OUT),
        (110.0, "paused", 0, Status.PAUSED),
        (109.9, "paused", 1, Status.SCHEDULED),
        (109.9, "closed", 1, Status.CLOSED),
        (3709.9, "open", 1, Status.OPEN),
        (3710.0, "open", 1, Status.CLOSED),
    ],
)
def test_the_status_follows_the_databases_clock_between_two_reads(
    mono_s: float, state: str, remaining: int, expected: Status
) -> None:
    assert coupon(state=state, remaining=remaining).status(mono_s) is expected


def test_around_the_opening_it_is_not_sure_for_as_long_as_its_read_took() -> None:
    seen = coupon()
    assert seen.status(110.2) is Status.OPEN
    assert not seen.has_surely_opened(110.2)
    assert seen.has_surely_opened(110.5)
