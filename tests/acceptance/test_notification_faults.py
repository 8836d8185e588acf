"""`make faults` on notifications, shortened: it passes a tolerated fault and catches lost notifications."""

from __future__ import annotations

import pytest

from loadtest.faults import notifying
from loadtest.faults.on_notifications import FAULTS

FLUSHED = next(fault for fault in FAULTS if "queue flushed" in fault.name)
# Latency is for `make faults` to judge, on a quiet machine.
PATIENT = {"COUPON_DEADLINE_MS": "5000", "COUPON_NOTIFY_TIMEOUT_S": "1"}


@pytest.mark.timeout(180)
def test_what_redis_lost_is_delivered_after_all() -> None:
    verdict = notifying.run(FLUSHED, environ={**PATIENT, "COUPON_NOTIFY_LEASE_S": "2"})
    assert not [one for one in verdict.broken if "attempt" not in one], verdict.seen


@pytest.mark.timeout(180)
def test_without_expiring_leases_the_same_fault_is_seen_to_lose_notifications() -> None:
    # The negative control of the test above, and of the tool.
    verdict = notifying.run(FLUSHED, heal_s=8.0, environ={**PATIENT, "COUPON_NOTIFY_LEASE_S": "3600"})
    broken = "\n".join(verdict.broken)
    assert "were not delivered" in broken
    assert "after 8 s something still waited" in broken
