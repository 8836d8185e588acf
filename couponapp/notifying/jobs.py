"""The RQ job. It carries ids only and reads the rest, so a job that is old does no harm."""

from __future__ import annotations

import logging

from couponapp.errors import ChannelFailed
from couponapp.notifying import outbox
from couponapp.notifying.channels import Channel
from couponapp.storage.pool import Pool

log = logging.getLogger(__name__)


class Delivery:
    """What a job needs of the process that runs it."""

    def __init__(self, pool: Pool, channel: Channel) -> None:
        self._pool = pool
        self._channel = channel

    def deliver(self, outbox_ids: list[int]) -> None:
        """Send those messages that were not sent before. One that fails does not stop the others.

        A crash after the channel accepted a message and before that is noted repeats the send;
        the channel knows the message by its issuance and lets it count once.

        Raises:
            couponapp.errors.Unavailable: PostgreSQL does not answer; the lease brings the rows back.
        """
        sent = []
        for notice in outbox.read_unsent(self._pool, outbox_ids):
            try:
                self._channel.send(notice)
            except ChannelFailed as error:
                log.warning("issuance %d waits for its next try: %s", notice.issuance_id, error)
                continue
            sent.append(notice)
        outbox.mark_sent(self._pool, [notice.outbox_id for notice in sent])
        for notice in sent:
            log.info("notified: issuance %d of coupon %d, %s", notice.issuance_id, notice.coupon_id, self._channel.name)


_delivery: Delivery | None = None


def configure(delivery: Delivery) -> None:
    """Tell the jobs of this process what to work with. RQ can pass them ids only."""
    global _delivery  # noqa: PLW0603  # RQ calls a function by its name; this is what it finds
    _delivery = delivery


def deliver(outbox_ids: list[int]) -> None:
    """Deliver a few outbox rows: what RQ calls."""
    assert _delivery is not None, "couponapp.worker calls configure() before it works"
    _delivery.deliver(outbox_ids)
