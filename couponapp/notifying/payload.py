"""The JSON body of a webhook: docs/events.md."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from couponapp.notifying.outbox import Notification

# Version of the whole format. New members keep it; any other change makes it 2.
VERSION = 1


def event(notification: Notification) -> bytes:
    """Return the event as UTF-8 JSON: the same bytes on every try."""
    return json.dumps(
        {
            "type": notification.kind,
            "version": VERSION,
            "timestamp": _iso(notification.created_at),
            "data": {
                "issuanceId": notification.issuance_id,
                "couponId": notification.coupon_id,
                "couponName": notification.coupon_name,
                "userId": notification.user_id,
                "code": notification.code,
                "issuedAt": _iso(notification.issued_at),
                "expiresAt": _iso(notification.expires_at),
            },
        },
        ensure_ascii=False,
        separators=(",", ":"),
    ).encode()


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
