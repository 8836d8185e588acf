"""A real SMTP server with an inspectable mailbox and scripted refusals."""

from __future__ import annotations

import asyncio
import datetime
import email
import email.policy
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from couponapp.local.postgres import free_port

USER, PASSWORD = "mailer", "p@ss:word"


class Mailbox:
    """The handler of the server, and what it has received."""

    def __init__(self) -> None:
        self.port = 0
        self.mails: list[EmailMessage] = []
        self.recipients: list[str] = []
        self.sessions = 0
        self.logins: list[bytes] = []
        self.recipient_reply = ""
        self.data_reply = ""
        self.stall: threading.Event | None = None
        # By Message-ID without its domain, which is the key of the webhook.
        self.accepted: Counter[str] = Counter()
        self.before: Callable[[str], None] = lambda key: None
        self.after: Callable[[str], None] = lambda key: None

    async def handle_EHLO(self, server: Any, session: Any, envelope: Any, name: str, answers: Any) -> Any:  # noqa: N802  # aiosmtpd's name
        """Count the sessions."""
        self.sessions += 1
        session.host_name = name
        return answers

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802  # aiosmtpd's name
        """Accept the recipient, or send the scripted reply."""
        if self.recipient_reply:
            return self.recipient_reply
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:  # noqa: N802  # aiosmtpd's name
        """Accept the mail, or send the scripted reply."""
        if self.stall is not None:
            await asyncio.get_running_loop().run_in_executor(None, self.stall.wait, 30)
        if self.data_reply:
            return self.data_reply
        assert isinstance(envelope.content, bytes)
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(mail, EmailMessage)
        key = str(mail["Message-ID"]).strip("<>").partition("@")[0]
        self.before(key)
        self.mails.append(mail)
        self.recipients += envelope.rcpt_tos
        self.accepted[key] += 1
        self.after(key)  # before the client gets the reply
        return "250 OK"

    def authenticate(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        """Accept one user and password."""
        assert isinstance(data, LoginPassword)
        self.logins.append(data.login)
        known = (data.login, data.password) == (USER.encode(), PASSWORD.encode())
        return AuthResult(success=known, handled=False)


@contextmanager
def running_mailbox(
    *, tls: ssl.SSLContext | None = None, starttls: bool = False, login: bool = False, port: int = 0
) -> Iterator[Mailbox]:
    """Listen on loopback until the block ends.

    Args:
        tls: with the server's certificate.
        starttls: start in plain text and offer STARTTLS.
        login: require a login.
        port: a free one if left out.
    """
    mailbox = Mailbox()
    mailbox.port = port or free_port()
    more: dict[str, Any] = {"auth_required": True, "authenticator": mailbox.authenticate} if login else {}
    controller = Controller(
        mailbox,
        hostname="127.0.0.1",
        port=mailbox.port,
        ssl_context=None if starttls else tls,
        tls_context=tls if starttls else None,
        require_starttls=starttls,
        auth_require_tls=starttls,
        ready_timeout=30,
        **more,
    )
    controller.start()
    try:
        yield mailbox
    finally:
        controller.stop()


def certificate(directory: Path) -> Path:
    """Create a self-signed certificate of `localhost`; return the file with it and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = directory / "localhost.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return path
