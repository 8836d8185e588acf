"""What happened, as JSON for other services: docs/events.md."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from couponapp.notifying.outbox import Notice

# Of the whole format. It grows by members only; whatever else would change makes it a 2.
VERSION = 1


def event(notice: Notice) -> bytes:
    """The event, UTF-8, the same bytes for every try."""
    return json.dumps(
        {
            "type": notice.kind,
            "version": VERSION,
            "timestamp": _iso(notice.created_at),
            "data": {
                "issuanceId": notice.issuance_id,
                "couponId": notice.coupon_id,
                "couponName": notice.coupon_name,
                "userId": notice.user_id,
                "code": notice.code,
                "issuedAt": _iso(notice.issued_at),
                "expiresAt": _iso(notice.expires_at),
            },
        },
        ensure_ascii=False,
        separators=(",", ":"),
    ).encode()


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
