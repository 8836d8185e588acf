"""The webhook channel: events to the shop, signed as Standard Webhooks specifies.

The scheme: https://www.standardwebhooks.com, headers `webhook-id`, `webhook-timestamp` and
`webhook-signature` (version `v1`).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import threading
import time
from collections.abc import Sequence

from couponapp.errors import ChannelFailed
from couponapp.notifying.channels.webhook.client import Client
from couponapp.notifying.outbox import Notification
from couponapp.notifying.payload import event

SECRET_PREFIX = "whsec_"  # noqa: S105  # not a secret: what each one begins with
# The receiver will never accept this event. Any other refusal, such as 404 during a deployment, may
# pass, and is retried within the bounds.
PERMANENT = (400, 410, 413, 422)
MAY_ASK_TO_WAIT = (429, 503)
HEADERS = ["Content-Type: application/json", "User-Agent: couponapp", "Accept-Encoding: identity", "Accept:"]


def sign(secrets: Sequence[bytes], key: str, sent_at: int, body: bytes) -> str:
    """Return the header `webhook-signature`: one signature per secret, so that secrets can be rotated.

    Args:
        secrets: the newest first.
        key: the header `webhook-id`.
        sent_at: the header `webhook-timestamp`, in seconds since 1970.
        body: exactly as sent.
    """
    content = f"{key}.{sent_at}.".encode() + body
    signatures = (base64.b64encode(hmac.digest(secret, content, hashlib.sha256)).decode() for secret in secrets)
    return " ".join(f"v1,{signature}" for signature in signatures)


def read_secret(text: str) -> bytes:
    """Decode a secret: `whsec_` and base64.

    Raises:
        ValueError: it has another form, or fewer than 24 or more than 64 bytes (the scheme's bounds).
    """
    if not text.startswith(SECRET_PREFIX):
        raise ValueError
    secret = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    if not 24 <= len(secret) <= 64:
        raise ValueError
    return secret


class WebhookChannel:
    """Posts each event to one URL."""

    name = "webhook"

    def __init__(self, url: str, secrets: Sequence[str], *, timeout_s: float, private: bool = False) -> None:
        """Open no connection yet.

        Args:
            url: `http` or `https`.
            secrets: `whsec_` and base64, the newest first.
            timeout_s: maximum duration of one event, in seconds.
            private: connect to addresses that are not public, too.
        """
        self._url = url
        self._secrets = [read_secret(secret) for secret in secrets]
        self._timeout_s = timeout_s
        self._private = private
        self._own = threading.local()

    def send(self, notification: Notification) -> None:
        """Post the event.

        Raises:
            ChannelFailed: the answer is not a 2xx, or does not arrive in time.
        """
        body, sent_at = event(notification), int(time.time())
        signed = [
            f"webhook-id: {notification.key}",
            f"webhook-timestamp: {sent_at}",
            f"webhook-signature: {sign(self._secrets, notification.key, sent_at, body)}",
        ]
        answer = self._client().post(HEADERS + signed, body)
        if not 200 <= answer.status < 300:
            raise ChannelFailed(
                f"answered {answer.status}",
                permanent=answer.status in PERMANENT,
                retry_after_s=answer.retry_after_s if answer.status in MAY_ASK_TO_WAIT else None,
            )

    def _client(self) -> Client:
        """Return this thread's client, whose connection is kept from event to event."""
        if not hasattr(self._own, "client"):
            self._own.client = Client(self._url, timeout_s=self._timeout_s, private=self._private)
        client: Client = self._own.client
        return client
