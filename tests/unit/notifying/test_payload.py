"""The JSON body of a webhook: the same bytes at every try, as docs/events.md shows them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

from couponapp.notifying.payload import VERSION, event
from tests.support.notification import NOTIFICATION
from tests.support.servers import ROOT


def test_the_members_are_those_of_the_documentation_in_its_order() -> None:
    shown = re.search(r"```json\n(.*?)```", (ROOT / "docs/events.md").read_text(encoding="utf-8"), re.DOTALL)
    assert shown
    documented, sent = json.loads(shown[1]), json.loads(event(NOTIFICATION))
    assert list(sent) == list(documented)
    assert list(sent["data"]) == list(documented["data"])
    assert sent["version"] == documented["version"] == VERSION


def test_times_are_utc_with_milliseconds_whatever_the_zone_of_the_database() -> None:
    seoul = datetime(2026, 11, 23, 9, 0, 0, 7_999, ZoneInfo("Asia/Seoul"))
    sent = json.loads(event(replace(NOTIFICATION, created_at=seoul, issued_at=seoul, expires_at=seoul)))
    times = {sent["timestamp"], sent["data"]["issuedAt"], sent["data"]["expiresAt"]}
    assert times == {"2026-11-23T00:00:00.007Z"}


def test_text_is_sent_as_utf_8_without_escapes_and_without_blanks_between_members() -> None:
    name = '<b>추석</b> "쿠폰" 🎁'
    body = event(replace(NOTIFICATION, coupon_name=name))
    assert f'"couponName":{json.dumps(name, ensure_ascii=False)},'.encode() in body
