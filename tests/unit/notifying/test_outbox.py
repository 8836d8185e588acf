"""What a receiver knows a notification by."""

from __future__ import annotations

import re
from dataclasses import replace

from tests.support.notification import NOTIFICATION


def test_a_key_depends_on_the_issuance_and_on_nothing_that_changes_from_try_to_try() -> None:
    again = replace(NOTIFICATION, outbox_id=NOTIFICATION.outbox_id + 1, coupon_name="renamed")
    assert again.key == NOTIFICATION.key
    assert replace(NOTIFICATION, issuance_id=NOTIFICATION.issuance_id + 1).key != NOTIFICATION.key
    assert replace(NOTIFICATION, kind="issuance.revoked").key != NOTIFICATION.key


def test_a_key_may_stand_in_a_header_and_in_a_message_id() -> None:
    assert re.fullmatch(r"[A-Za-z0-9_]+", NOTIFICATION.key)
