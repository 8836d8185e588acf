"""Ways to a holder, and to the shop."""

from __future__ import annotations

from typing import Protocol

from couponapp.notifying.outbox import Notification


class Channel(Protocol):
    """Accepts messages; the same message twice has the effect of one.

    Several threads send at once.
    """

    name: str

    def send(self, notification: Notification) -> None:
        """Accept the message for good.

        Raises:
            couponapp.errors.ChannelFailed: it did not; the error says whether it may later.
        """
