"""What becomes of a message whose try did not succeed: another one, later and later, or a dead letter."""

from __future__ import annotations

import logging
import random

from couponapp.errors import ChannelFailed
from couponapp.notifying.deliveries import ClaimedDelivery, Failure

log = logging.getLogger(__name__)

FIRST_DELAY_S = 2.0
MAX_DELAY_S = 3_600.0
# So often may a process end in the middle of one message before that message is taken for the cause.
MAX_CRASHES = 5
MAX_REASON = 500


def after_failure(one: ClaimedDelivery, error: ChannelFailed, channel: str, *, tries: int) -> Failure:
    """What follows a try that came back with an error.

    Twice as long a delay for each failure, shortened by up to a half at random, so that what failed
    together does not come back together.

    Args:
        one: the message.
        error: what the channel said.
        channel: its name.
        tries: the most for one message.
    """
    reason, final = str(error)[:MAX_REASON], ""
    if error.permanent:
        final = "permanent"
    elif one.given_up:
        final = "its time is over"
    elif one.failures + 1 >= tries:
        final = f"{one.failures + 1} tries"
    if final:
        log.warning("issuance %d is not notified by %s: %s", one.notification.issuance_id, channel, reason)
        return Failure(one.notification.outbox_id, f"{reason} ({final})", None)
    delay_s = min(MAX_DELAY_S, FIRST_DELAY_S * 2.0**one.failures) * random.uniform(0.5, 1.0)
    delay_s = max(delay_s, min(error.retry_after_s or 0.0, MAX_DELAY_S))
    log.warning("issuance %d waits %.1f s for its next try: %s", one.notification.issuance_id, delay_s, reason)
    return Failure(one.notification.outbox_id, reason, delay_s)


def poisoned(one: ClaimedDelivery, channel: str) -> Failure | None:
    """The end of a message with which processes died again and again; None for any other."""
    crashes = one.tries - 1 - one.failures
    if crashes < MAX_CRASHES:
        return None
    reason = f"{crashes} times the process ended in the middle of it"
    log.error("issuance %d is not notified by %s: %s", one.notification.issuance_id, channel, reason)
    return Failure(one.notification.outbox_id, reason, None)
