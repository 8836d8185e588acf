"""The webhook channel: events to the shop, signed as Standard Webhooks has it.

The scheme: https://www.standardwebhooks.com, «webhook-id», «webhook-timestamp»,
«webhook-signature» with `v1`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import io
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from couponapp.errors import ChannelFailed
from couponapp.notifying.channels.addresses import connect
from couponapp.notifying.events import event
from couponapp.notifying.outbox import Notice
from couponapp.storage.watchdog import Watchdog

SECRET_PREFIX = "whsec_"  # noqa: S105  # what a secret begins with
# «This message will not do, now or later.» Everything else, such as 404 while the shop deploys,
# may pass: it is tried again within the bounds.
PERMANENT = (400, 410, 413, 422)
ASKS_FOR_PATIENCE = (429, 503)
MAX_ANSWER = 65_536
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
        self._authority = parts.netloc.rpartition("@")[2]
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._secrets = [read_secret(secret) for secret in secrets]
        self._timeout_s = timeout_s
        self._private = private
        self._own = threading.local()

    def send(self, notice: Notice) -> None:
        """Post the event.

        Raises:
            ChannelFailed: the answer is not a 2xx, or does not come in time.
        """
        body, sent_at = event(notice), int(time.time())
        headers = {
            "Host": self._authority,
            "Content-Type": "application/json",
            "User-Agent": AGENT,
            "webhook-id": notice.key,
            "webhook-timestamp": str(sent_at),
            "webhook-signature": sign(self._secrets, notice.key, sent_at, body),
        }
        status, retry_after = self._post(body, headers)
        if 200 <= status < 300:
            return
        patience_s = _seconds(retry_after) if status in ASKS_FOR_PATIENCE else None
        raise ChannelFailed(f"answered {status}", permanent=status in PERMANENT, retry_after_s=patience_s)

    def _post(self, body: bytes, headers: dict[str, str]) -> tuple[int, str | None]:
        """Status and `Retry-After`. Redirects are answers like others: nothing is followed."""
        connection = self._connection()
        reused = connection.sock is not None
        try:
            return connection.exchange(self._path, body, headers, self._timeout_s)
        except (OSError, http.client.HTTPException) as error:
            if reused and not connection.timed_out:
                # Most likely closed while it was idle. If it was not, the receiver knows the event by its id.
                return self._post(body, headers)
            what = f"in {self._timeout_s:.0f} s" if connection.timed_out else str(error) or type(error).__name__
            raise ChannelFailed(f"no answer: {what}") from error

    def _connection(self) -> _Connection:
        """This thread's, kept from event to event."""
        found: _Connection | None = getattr(self._own, "connection", None)
        if found is None:
            found = self._own.connection = _Connection(self._host, self._port, self._tls, private=self._private)
        return found


class _Answer(http.client.HTTPResponse):
    """An answer whose head must come to its end: the library takes a torn one for a whole one."""

    def begin(self) -> None:
        """Read the head."""
        lines = _Lines(self.fp.detach())
        self.fp = lines
        super().begin()
        if lines.last not in (b"\r\n", b"\n"):
            raise http.client.IncompleteRead(lines.last)


class _Lines(io.BufferedReader):
    """Remembers the last line."""

    last = b""

    def readline(self, size: int | None = -1, /) -> bytes:
        self.last = super().readline(size)
        return self.last


class _Connection(http.client.HTTPConnection):
    """Connects to a checked address only, and is cut off when an exchange takes too long."""

    response_class = _Answer

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None, *, private: bool) -> None:
        super().__init__(host, port)
        self._tls = tls
        self._private = private
        self._give_up_s = 0.0
        self.timed_out = False

    def exchange(self, path: str, body: bytes, headers: dict[str, str], timeout_s: float) -> tuple[int, str | None]:
        """Status and `Retry-After` of one answer. However slowly it comes, it ends after `timeout_s`."""
        self._give_up_s, self.timed_out = time.monotonic() + timeout_s, False
        watch = _watchdog.watch(self, timeout_s)
        try:
            self.request("POST", path, body, headers)
            answer = self.getresponse()
            told = min(answer.length or 0, MAX_ANSWER)
            if len(content := answer.read(MAX_ANSWER)) < told:
                raise http.client.IncompleteRead(content)
            if watch.stop():
                raise TimeoutError
            if not answer.isclosed():
                self.close()  # it goes on and on
            return answer.status, answer.headers.get("Retry-After")
        except BaseException as error:
            self.timed_out = watch.stop() or isinstance(error, TimeoutError)
            self.close()
            raise

    def connect(self) -> None:
        """Called by `request` where there is no connection."""
        left_s = max(0.01, self._give_up_s - time.monotonic())
        plain = connect(self.host, self.port, timeout_s=left_s, private=self._private)
        self.sock = plain
        if self._tls is not None:
            self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)

    def fileno(self) -> int:
        """For the watchdog."""
        found: socket.socket | None = self.sock
        if found is None or found.fileno() < 0:
            raise OSError("not connected")
        return found.fileno()


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
