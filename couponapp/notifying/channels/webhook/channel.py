"""The webhook channel: events to the shop, signed as Standard Webhooks has it.

The scheme: https://www.standardwebhooks.com, «webhook-id», «webhook-timestamp»,
«webhook-signature» with `v1`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import select
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from io import BufferedReader
from urllib.parse import urlsplit

from couponapp.errors import ChannelFailed
from couponapp.notifying.channels.webhook.addresses import connect
from couponapp.notifying.channels.webhook.answers import NoAnswer, read_answer
from couponapp.notifying.outbox import Notification
from couponapp.notifying.payload import event
from couponapp.storage.watchdog import Watchdog

SECRET_PREFIX = "whsec_"  # noqa: S105  # what a secret begins with
# «This message will not do, now or later.» Everything else, such as 404 while the shop deploys,
# may pass: it is tried again within the bounds.
PERMANENT = (400, 410, 413, 422)
ASKS_FOR_PATIENCE = (429, 503)
AGENT = "couponapp"

_watchdog = Watchdog()


def sign(secrets: Sequence[bytes], key: str, sent_at: int, body: bytes) -> str:
    """The header `webhook-signature`: one signature per secret, so that secrets can be changed.

    Args:
        secrets: the newest first.
        key: the header `webhook-id`.
        sent_at: the header `webhook-timestamp`, in seconds since 1970.
        body: as it goes over the wire.
    """
    content = f"{key}.{sent_at}.".encode() + body
    signatures = (base64.b64encode(hmac.digest(secret, content, hashlib.sha256)).decode() for secret in secrets)
    return " ".join(f"v1,{signature}" for signature in signatures)


def read_secret(text: str) -> bytes:
    """A secret in the scheme's own form, `whsec_` and base64.

    Raises:
        ValueError: it is not, or has fewer than 24 or more than 64 bytes (the scheme's bounds).
    """
    if not text.startswith(SECRET_PREFIX):
        raise ValueError
    secret = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    if not 24 <= len(secret) <= 64:
        raise ValueError
    return secret


class WebhookChannel:
    """Posts each event to one address."""

    name = "webhook"

    def __init__(self, url: str, secrets: Sequence[str], *, timeout_s: float, private: bool = False) -> None:
        """Connect nowhere yet.

        Args:
            url: where to post, `http` or `https`.
            secrets: in the scheme's form, the newest first.
            timeout_s: the most for one event, in seconds.
            private: addresses that are not public are allowed.
        """
        parts = urlsplit(url)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._tls else 80)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        # What all requests have in common. The address is checked: it holds no line break.
        self._head = (
            f"POST {target} HTTP/1.1\r\nHost: {parts.netloc.rpartition('@')[2]}\r\nUser-Agent: {AGENT}\r\n"
            "Accept-Encoding: identity\r\nContent-Type: application/json\r\n"
        )
        self._secrets = [read_secret(secret) for secret in secrets]
        self._timeout_s = timeout_s
        self._private = private
        self._own = threading.local()

    def send(self, notification: Notification) -> None:
        """Post the event.

        Raises:
            ChannelFailed: the answer is not a 2xx, or does not come in time.
        """
        status, retry_after = self._post(self._request(notification))
        if 200 <= status < 300:
            return
        patience_s = _seconds(retry_after) if status in ASKS_FOR_PATIENCE else None
        raise ChannelFailed(f"answered {status}", permanent=status in PERMANENT, retry_after_s=patience_s)

    def _request(self, notification: Notification) -> bytes:
        """Head and body in one piece: two writes would be two packets, and cost twice."""
        body, sent_at = event(notification), int(time.time())
        head = (
            f"{self._head}Content-Length: {len(body)}\r\n"
            f"webhook-id: {notification.key}\r\n"
            f"webhook-timestamp: {sent_at}\r\n"
            f"webhook-signature: {sign(self._secrets, notification.key, sent_at, body)}\r\n\r\n"
        )
        return head.encode("ascii") + body

    def _post(self, request: bytes) -> tuple[int, str | None]:
        """Status and `Retry-After`. Redirects are answers like others: nothing is followed."""
        connection = self._connection()
        reused = connection.can_go_on()
        try:
            return connection.exchange(request, self._timeout_s)
        except (OSError, NoAnswer) as error:
            if reused and not connection.timed_out:
                # Most likely closed while it was idle. If it was not, the receiver knows the event by its id.
                return self._post(request)
            what = f"in {self._timeout_s:.0f} s" if connection.timed_out else str(error) or type(error).__name__
            raise ChannelFailed(f"no answer: {what}") from error

    def _connection(self) -> _Connection:
        """This thread's, kept from event to event."""
        found: _Connection | None = getattr(self._own, "connection", None)
        if found is None:
            found = self._own.connection = _Connection(self._host, self._port, self._tls, private=self._private)
        return found


class _Connection:
    """Connects to a checked address only, and is cut off when an exchange takes too long."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None, *, private: bool) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self._private = private
        self._socket: socket.socket | None = None
        self._answers: BufferedReader | None = None
        self.timed_out = False

    def can_go_on(self) -> bool:
        """There is a connection from an earlier exchange, and nothing has come since.

        What has come is its end, or more than one answer: that must not be taken for the next event's.
        """
        if self._socket is not None and _has_come(self._socket):
            self._close()
        return self._socket is not None

    def exchange(self, request: bytes, timeout_s: float) -> tuple[int, str | None]:
        """Status and `Retry-After` of one answer. However slowly it comes, it ends after `timeout_s`."""
        self.timed_out = False
        give_up_s = time.monotonic() + timeout_s
        watch = _watchdog.watch(self, timeout_s)
        try:
            if self._socket is None or self._answers is None:
                self._socket = self._connect(give_up_s)
                self._answers = self._socket.makefile("rb")
            self._socket.sendall(request)
            answer = read_answer(self._answers)
            if watch.stop():
                raise TimeoutError
            if not answer.keeps:
                self._close()
            return answer.status, answer.headers.get("retry-after")
        except BaseException as error:
            self.timed_out = watch.stop() or isinstance(error, TimeoutError)
            self._close()
            raise

    def fileno(self) -> int:
        """For the watchdog."""
        found = self._socket
        if found is None or found.fileno() < 0:
            raise OSError("not connected")
        return found.fileno()

    def _connect(self, give_up_s: float) -> socket.socket:
        left_s = max(0.01, give_up_s - time.monotonic())
        self._socket = plain = connect(self._host, self._port, timeout_s=left_s, private=self._private)
        if self._tls is None:
            return plain
        # The handshake is for the watchdog to see as well, so it comes once the socket is known.
        self._socket = ciphered = self._tls.wrap_socket(
            plain, server_hostname=self._host, do_handshake_on_connect=False
        )
        ciphered.do_handshake()
        return ciphered

    def _close(self) -> None:
        for one in (self._answers, self._socket):
            if one is not None:
                one.close()
        self._answers = self._socket = None


def _has_come(connection: socket.socket) -> bool:
    """Something can be read, if only that the other side has closed."""
    if isinstance(connection, ssl.SSLSocket) and connection.pending():
        return True
    # Not select(), which knows no descriptor from 1,024 on.
    waiting = select.poll()
    waiting.register(connection, select.POLLIN)
    return bool(waiting.poll(0))


def _seconds(retry_after: str | None) -> float | None:
    """What `Retry-After` asks for: seconds or a date (RFC 9110, section 10.2.3)."""
    if retry_after is None:
        return None
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after[:9])
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
