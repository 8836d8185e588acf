"""The e-mail channel: SMTP."""

from __future__ import annotations

import smtplib
import ssl
import threading
import time
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import formatdate
from urllib.parse import SplitResult, unquote, urlsplit
from zoneinfo import ZoneInfo

from couponapp.config.parsers import EMAIL
from couponapp.errors import ChannelFailed
from couponapp.notifying.messages import render
from couponapp.notifying.outbox import Notification
from couponapp.storage.watchdog import Watchdog

MAX_ADDRESS = 254
DEFAULT_PORTS = {"smtp": 587, "smtps": 465, "smtp+plain": 25}
# Servers close idle connections, and some close connections after a number of mails.
KEEP_IDLE_S = 20.0
MAX_PER_CONNECTION = 100

_watchdog = Watchdog()


class EmailChannel:
    """Sends each notification to its holder's address."""

    name = "email"

    def __init__(
        self,
        url: str,
        *,
        sender: str,
        recipient: str,
        time_zone: ZoneInfo,
        timeout_s: float,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Open no connection yet.

        Args:
            url: the server, as `scheme://[user:password@]host[:port]`. `smtp` requires STARTTLS, `smtps` is TLS from
                the start, `smtp+plain` is unencrypted.
            sender: the `From` address.
            recipient: the `To` address, with `{user_id}` in it.
            time_zone: of the times in the text.
            timeout_s: maximum duration of one send, in seconds.
            tls: trusted authorities; the system's if left out.
        """
        self._server = urlsplit(url)
        self._sender = sender
        self._domain = sender.rpartition("@")[2]
        self._recipient = recipient
        self._time_zone = time_zone
        self._timeout_s = timeout_s
        self._tls = tls or ssl.create_default_context()
        self._own = threading.local()

    def send(self, notification: Notification) -> None:
        """Send the mail.

        Raises:
            ChannelFailed: the holder has no address, or the server does not accept the mail.
        """
        recipient = self._recipient.replace("{user_id}", notification.user_id)
        if not EMAIL.fullmatch(recipient) or len(recipient) > MAX_ADDRESS:
            raise ChannelFailed("the holder has no e-mail address", permanent=True)
        mail = self._mail(notification, recipient)
        session = self._session()
        watch = _watchdog.watch(session, self._timeout_s)
        try:
            session.send(mail, self._sender, recipient)
        except (OSError, smtplib.SMTPException, UnicodeError) as error:
            timed_out = watch.stop()
            session.close()
            raise _failure(error, timed_out=timed_out) from error
        finally:
            watch.stop()

    def _mail(self, notification: Notification, recipient: str) -> EmailMessage:
        message = render(notification, self._time_zone)
        mail = EmailMessage(SMTP_POLICY)
        mail["From"] = Address(addr_spec=self._sender)
        mail["To"] = Address(addr_spec=recipient)
        mail["Subject"] = " ".join(message.subject.split())
        mail["Date"] = formatdate(notification.created_at.timestamp())
        # The same on every try, so that a mailbox can drop a repeat.
        mail["Message-ID"] = f"<{notification.key}@{self._domain}>"
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: asks for no automatic replies
        mail.set_content(message.text, cte="base64")
        mail.add_alternative(message.html, subtype="html", cte="base64")
        return mail

    def _session(self) -> _Session:
        """Return this thread's session, which is kept from mail to mail."""
        found: _Session | None = getattr(self._own, "session", None)
        if found is None:
            found = self._own.session = _Session(self._server, self._tls, self._timeout_s, self._domain)
        return found


class _Session:
    """A connection to the server, opened on demand and reused."""

    def __init__(self, server: SplitResult, tls: ssl.SSLContext, timeout_s: float, own_name: str) -> None:
        self._server = server
        self._tls = tls
        self._timeout_s = timeout_s
        self._own_name = own_name
        self._smtp: smtplib.SMTP | None = None
        self._used = 0
        self._used_at_s = 0.0

    def send(self, mail: EmailMessage, sender: str, recipient: str) -> None:
        """Send one mail, on the open connection if it still answers."""
        if self._smtp is not None and not self._is_alive(self._smtp):
            self.close()
        smtp = self._smtp or self._open()
        smtp.send_message(mail, sender, [recipient])
        self._used, self._used_at_s = self._used + 1, time.monotonic()

    def fileno(self) -> int:
        """Return the descriptor that the watchdog shuts."""
        smtp = self._smtp
        if smtp is None or smtp.sock is None or smtp.sock.fileno() < 0:
            raise OSError("not connected")
        return smtp.sock.fileno()

    def close(self) -> None:
        """Close the connection without QUIT."""
        if self._smtp is not None:
            self._smtp.close()
            self._smtp = None

    def _is_alive(self, smtp: smtplib.SMTP) -> bool:
        if self._used >= MAX_PER_CONNECTION or time.monotonic() - self._used_at_s > KEEP_IDLE_S:
            return False
        try:
            return smtp.noop()[0] == 250
        except (OSError, smtplib.SMTPException):
            return False

    def _open(self) -> smtplib.SMTP:
        give_up_s = time.monotonic() + self._timeout_s
        scheme, host = self._server.scheme, self._server.hostname or ""
        if scheme == "smtps":
            smtp: smtplib.SMTP = smtplib.SMTP_SSL(
                local_hostname=self._own_name, timeout=self._timeout_s, context=self._tls
            )
        else:
            smtp = smtplib.SMTP(local_hostname=self._own_name, timeout=self._timeout_s)
        # The constructor would connect before the watchdog can see the socket, so it gets no host;
        # the certificate is checked against this name.
        smtp._host = host  # type: ignore[attr-defined]  # smtplib has no other way
        self._smtp, self._used = smtp, 0
        code, said = smtp.connect(host, self._server.port or DEFAULT_PORTS[scheme])
        if code != 220:
            raise smtplib.SMTPConnectError(code, said)
        if scheme == "smtp":
            smtp.starttls(context=self._tls)
        if self._server.username:
            smtp.login(unquote(self._server.username), unquote(self._server.password or ""))
        if time.monotonic() > give_up_s:
            raise TimeoutError("the session took too long to open")
        return smtp


def _failure(error: Exception, *, timed_out: bool) -> ChannelFailed:
    """Translate an error. Permanent: a 5xx about this recipient or this mail (RFC 5321, section 4.2.1)."""
    if timed_out:
        return ChannelFailed("the mail server was too slow")
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        ((code, said),) = error.recipients.values()
        return ChannelFailed(f"recipient refused: {_reply(code, said)}", permanent=500 <= code < 600)
    if isinstance(error, smtplib.SMTPDataError):
        return ChannelFailed(
            f"mail refused: {_reply(error.smtp_code, error.smtp_error)}", permanent=500 <= error.smtp_code < 600
        )
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return ChannelFailed(f"login refused: {error.smtp_code}")  # the server's text may name the user
    if isinstance(error, smtplib.SMTPResponseException):
        return ChannelFailed(f"not now: {_reply(error.smtp_code, error.smtp_error)}")
    return ChannelFailed(f"mail server: {str(error) or type(error).__name__}")


def _reply(code: int, said: bytes | str) -> str:
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
    return f"{code} {' '.join(text.split())}"
