"""What follows a try that did not succeed: another try after a growing delay, or a dead letter."""

from __future__ import annotations

import logging
import random

from couponapp.errors import ChannelFailed
from couponapp.notifying.deliveries import ClaimedDelivery, Failure

log = logging.getLogger(__name__)

FIRST_DELAY_S = 2.0
MAX_DELAY_S = 3_600.0
# After so many crashes during one delivery, that delivery is assumed to cause them.
MAX_CRASHES = 5
MAX_REASON = 500


def after_failure(one: ClaimedDelivery, error: ChannelFailed, channel: str, *, tries: int) -> Failure:
    """Decide what follows a try that ended with an error.

    The delay doubles with each failure and is shortened at random by up to a half, so that deliveries
    that failed together do not come back together.

    Args:
        one: the delivery that failed.
        error: what the channel reported.
        channel: its name.
        tries: maximum number of tries.
    """
    issuance_id, reason, final = one.notification.issuance_id, str(error)[:MAX_REASON], ""
    if error.permanent:
        final = "permanent"
    elif one.given_up:
        final = "its time is over"
    elif one.failures + 1 >= tries:
        final = f"{one.failures + 1} tries"
    if final:
        log.warning("issuance %d is not notified by %s: %s", issuance_id, channel, reason)
        return Failure(one.notification.outbox_id, f"{reason} ({final})", None)
    delay_s = min(MAX_DELAY_S, FIRST_DELAY_S * 2.0**one.failures) * random.uniform(0.5, 1.0)
    delay_s = max(delay_s, min(error.retry_after_s or 0.0, MAX_DELAY_S))
    log.warning("issuance %d is tried again in %.1f s: %s", issuance_id, delay_s, reason)
    return Failure(one.notification.outbox_id, reason, delay_s)


def poisoned(one: ClaimedDelivery, channel: str) -> Failure | None:
    """Return the final failure of a delivery that has crashed too many processes; None for any other."""
    crashes = one.tries - 1 - one.failures
    if crashes < MAX_CRASHES:
        return None
    reason = f"the process died {crashes} times while sending it"
    log.error("issuance %d is not notified by %s: %s", one.notification.issuance_id, channel, reason)
    return Failure(one.notification.outbox_id, reason, None)
