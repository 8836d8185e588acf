"""A notification as `docs/events.md` shows it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from couponapp.notifying.outbox import Notification

MOMENT = datetime(2026, 11, 23, 2, 36, 58, 796_000, UTC)
NOTIFICATION = Notification(
    outbox_id=7,
    kind="issuance.issued",
    created_at=MOMENT,
    issuance_id=1,
    coupon_id=1,
    coupon_name="첫 구매 감사 5,000원 쿠폰",
    user_id="minji",
    code="MZDA-MQV2-QNJK-7CX8-Z746",
    issued_at=MOMENT,
    expires_at=MOMENT + timedelta(days=30),
)
