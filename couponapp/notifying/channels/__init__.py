"""Channels: one folder each, with the transport and nothing else.

A channel sends one notification and says whether it was accepted. Retries, rates, circuit breaker
and time limits are the job's (`couponapp.notifying.jobs`). A repeat carries the same key, so that
the other end can let it count once.
"""

from __future__ import annotations

from typing import Protocol

from couponapp.notifying.outbox import Notification


class Channel(Protocol):
    """Sends notifications. Called from several threads at the same time."""

    name: str

    def send(self, notification: Notification) -> None:
        """Send one notification; return when the other end has accepted it for good.

        Raises:
            couponapp.errors.ChannelFailed: it was not accepted. The error says whether it may be later.
        """
