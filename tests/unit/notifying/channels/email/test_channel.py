"""The e-mail channel against a real SMTP server: mails, login, TLS and the meaning of each refusal."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pytest

from couponapp.errors import ChannelFailed
from couponapp.local.postgres import free_port
from couponapp.notifying.channels.email.channel import MAX_PER_CONNECTION, EmailChannel
from couponapp.notifying.outbox import Notification
from tests.support import notification
from tests.support.mailbox import PASSWORD, USER, Mailbox, certificate, running_mailbox

NOTIFICATION = replace(notification.NOTIFICATION, issuance_id=42, coupon_name="<b>추석</b> & 쿠폰")


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    with running_mailbox() as mailbox:
        yield mailbox


def channel(
    url: str, *, recipient: str = "{user_id}@shop.example", timeout_s: float = 10.0, tls: ssl.SSLContext | None = None
) -> EmailChannel:
    return EmailChannel(
        url,
        sender="coupons@shop.example",
        recipient=recipient,
        time_zone=ZoneInfo("Asia/Seoul"),
        timeout_s=timeout_s,
        tls=tls,
    )


def plain(mailbox: Mailbox, **more: float) -> EmailChannel:
    return channel(f"smtp+plain://127.0.0.1:{mailbox.port}", **more)  # type: ignore[arg-type]  # only timeout_s


def failure(sender: EmailChannel, notification: Notification = NOTIFICATION) -> ChannelFailed:
    with pytest.raises(ChannelFailed) as error:
        sender.send(notification)
    return error.value


def part(mail: EmailMessage, kind: str) -> str:
    body = mail.get_body((kind,))
    assert body is not None
    return str(body.get_content())


def test_a_mail_is_in_korean_and_english_as_text_and_as_html(mailbox: Mailbox) -> None:
    plain(mailbox).send(NOTIFICATION)
    (mail,) = mailbox.mails
    assert (mail["From"], mail["To"], mailbox.recipients) == (
        "coupons@shop.example", "minji@shop.example", ["minji@shop.example"],
    )  # fmt: skip
    assert mail["Subject"] == "[<b>추석</b> & 쿠폰] 쿠폰이 발급되었습니다 / Your coupon has been issued"
    text, html = part(mail, "plain"), part(mail, "html")
    for said in (NOTIFICATION.code, "2026-11-23 11:36:58 KST", "코드:", "Code:"):
        assert said in text
        assert said in html.replace(f'<code style="font-size: 1.2em">{NOTIFICATION.code}', f"{NOTIFICATION.code}")
    assert "<b>추석</b> & 쿠폰" in text
    assert "&lt;b&gt;추석&lt;/b&gt; &amp; 쿠폰" in html


def test_a_repeat_has_the_same_message_id(mailbox: Mailbox) -> None:
    for _ in range(2):
        plain(mailbox).send(NOTIFICATION)
    assert {mail["Message-ID"] for mail in mailbox.mails} == {"<issuance_issued_42@shop.example>"}


def test_a_name_with_line_breaks_adds_no_header(mailbox: Mailbox) -> None:
    plain(mailbox).send(replace(NOTIFICATION, coupon_name="a\r\nBcc: everybody@shop.example"))
    (mail,) = mailbox.mails
    assert mail["Bcc"] is None
    assert mail["Subject"].startswith("[a Bcc: everybody@shop.example] ")


@pytest.mark.parametrize(
    "user", ["김철수", "a b", "a@b", 'x"@', "a\nb", "<minji>", "minji,lee", "m" * 300, "minji@elsewhere.example, lee"]
)
def test_a_holder_without_an_address_is_a_permanent_failure(mailbox: Mailbox, user: str) -> None:
    assert failure(plain(mailbox), replace(NOTIFICATION, user_id=user)).permanent
    assert mailbox.sessions == 0


def test_a_sub_that_is_an_address_is_used_unchanged(mailbox: Mailbox) -> None:
    sender = channel(f"smtp+plain://127.0.0.1:{mailbox.port}", recipient="{user_id}")
    sender.send(replace(NOTIFICATION, user_id="minji.kim+coupons@example.co.kr"))
    assert mailbox.recipients == ["minji.kim+coupons@example.co.kr"]
    assert failure(sender).permanent


# Refusals


@pytest.mark.parametrize(("code", "permanent"), [(450, False), (451, False), (550, True), (553, True)])
def test_a_refused_recipient_is_permanent_if_the_reply_is_5xx(mailbox: Mailbox, code: int, permanent: bool) -> None:
    mailbox.recipient_reply = f"{code} no such mailbox"
    error = failure(plain(mailbox))
    assert (error.permanent, str(error)) == (permanent, f"recipient refused: {code} no such mailbox")


@pytest.mark.parametrize(("code", "permanent"), [(421, False), (452, False), (552, True), (554, True)])
def test_a_refused_mail_is_permanent_if_the_reply_is_5xx(mailbox: Mailbox, code: int, permanent: bool) -> None:
    mailbox.data_reply = f"{code} not this one"
    error = failure(plain(mailbox))
    assert (error.permanent, str(error)) == (permanent, f"mail refused: {code} not this one")


def test_after_a_refusal_the_next_mail_is_sent(mailbox: Mailbox) -> None:
    sender = plain(mailbox)
    mailbox.recipient_reply = "550 no such mailbox"
    failure(sender)
    mailbox.recipient_reply = ""
    sender.send(NOTIFICATION)
    assert len(mailbox.mails) == 1


def test_a_closed_port_is_a_temporary_failure() -> None:
    assert not failure(channel(f"smtp+plain://127.0.0.1:{free_port()}")).permanent


def test_a_stalling_server_is_cut_off(mailbox: Mailbox) -> None:
    mailbox.stall = threading.Event()
    sender = plain(mailbox, timeout_s=0.5)
    try:
        assert not failure(sender).permanent
    finally:
        mailbox.stall.set()
        mailbox.stall = None
    sender.send(NOTIFICATION)


# Connections


def test_mails_share_a_connection_up_to_a_maximum(mailbox: Mailbox) -> None:
    sender = plain(mailbox)
    for number in range(MAX_PER_CONNECTION + 1):
        sender.send(replace(NOTIFICATION, issuance_id=number))
    assert (len(mailbox.mails), mailbox.sessions) == (MAX_PER_CONNECTION + 1, 2)


def test_each_thread_has_a_connection_of_its_own(mailbox: Mailbox) -> None:
    sender = plain(mailbox)
    with ThreadPoolExecutor(4) as executor:
        list(executor.map(lambda n: sender.send(replace(NOTIFICATION, issuance_id=n)), range(40)))
    assert len({mail["Message-ID"] for mail in mailbox.mails}) == 40
    assert mailbox.sessions <= 4


def test_a_kept_connection_that_was_lost_is_replaced() -> None:
    with running_mailbox() as first:
        sender = plain(first)
        sender.send(NOTIFICATION)
    with running_mailbox(port=first.port) as second:
        sender.send(NOTIFICATION)
        assert len(second.mails) == 1


# TLS and login


@pytest.fixture
def server_tls(tmp_path: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(tmp_path))
    return context


@pytest.fixture
def trusted(server_tls: ssl.SSLContext, tmp_path: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(tmp_path / "localhost.pem"))


def login_url(scheme: str, port: int, password: str = PASSWORD) -> str:
    return f"{scheme}://{USER}:{quote(password, safe='')}@localhost:{port}"


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_the_login_goes_over_tls(scheme: str, server_tls: ssl.SSLContext, trusted: ssl.SSLContext) -> None:
    # aiosmtpd treats a login over implicit TLS as plain text, so that server asks for none.
    with running_mailbox(tls=server_tls, starttls=scheme == "smtp", login=scheme == "smtp") as mailbox:
        url = login_url(scheme, mailbox.port) if scheme == "smtp" else f"smtps://localhost:{mailbox.port}"
        channel(url, tls=trusted).send(NOTIFICATION)
        assert len(mailbox.mails) == 1
        assert mailbox.logins == ([USER.encode()] if scheme == "smtp" else [])


def test_a_wrong_password_is_a_temporary_failure_and_not_in_the_reason(
    server_tls: ssl.SSLContext, trusted: ssl.SSLContext
) -> None:
    with running_mailbox(tls=server_tls, starttls=True, login=True) as mailbox:
        error = failure(channel(login_url("smtp", mailbox.port, "wrong-word"), tls=trusted))
    assert (error.permanent, str(error)) == (False, "login refused: 535")


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_a_server_with_an_untrusted_certificate_gets_nothing(scheme: str, server_tls: ssl.SSLContext) -> None:
    with running_mailbox(tls=server_tls, starttls=scheme == "smtp") as mailbox:
        error = failure(channel(f"{scheme}://localhost:{mailbox.port}"))
        assert not error.permanent
        assert "certificate" in str(error)
        assert mailbox.mails == []


def test_a_server_without_starttls_gets_nothing(mailbox: Mailbox) -> None:
    assert not failure(channel(f"smtp://127.0.0.1:{mailbox.port}")).permanent
    assert mailbox.mails == []
