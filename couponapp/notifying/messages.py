"""The text that a holder reads, in Korean and English: the holder's language is not known."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from couponapp.notifying.outbox import Notification

_templates = Environment(
    loader=PackageLoader("couponapp.notifying"),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    keep_trailing_newline=True,
)

# Korean and English, by kind of event; the templates are named by kind, too.
_SUBJECTS = {"issuance.issued": ("[{}] 쿠폰이 발급되었습니다", "[{}] Your coupon has been issued")}


@dataclass(frozen=True)
class Message:
    """An e-mail's subject and its two bodies."""

    subject: str
    text: str
    html: str


def render(notification: Notification, time_zone: ZoneInfo) -> Message:
    """Render the message of an e-mail, with times in the given zone."""
    korean, english = _subjects(notification)
    subject = f"{korean} / {english.removeprefix(f'[{notification.coupon_name}] ')}"
    words = {"subject": subject, **_words(notification, time_zone)}
    return Message(
        subject, *(_templates.get_template(f"{notification.kind}.{form}").render(words) for form in ("txt", "html"))
    )


def render_file(notification: Notification, time_zone: ZoneInfo) -> str:
    """Render the text that the file channel writes, with times in the given zone."""
    korean, english = _subjects(notification)
    text = _templates.get_template(f"{notification.kind}.txt").render(_words(notification, time_zone))
    head = f"받는 사람: {notification.user_id}\n제목: {korean}\n\n"
    return head + text.replace("--\n", f"--\nTo: {notification.user_id}\nSubject: {english}\n\n", 1)


def _subjects(notification: Notification) -> tuple[str, str]:
    korean, english = _SUBJECTS[notification.kind]
    return korean.format(notification.coupon_name), english.format(notification.coupon_name)


def _words(notification: Notification, time_zone: ZoneInfo) -> dict[str, str]:
    def local(moment: datetime) -> str:
        return f"{moment.astimezone(time_zone):%Y-%m-%d %H:%M:%S %Z}"

    return {
        "user_id": notification.user_id,
        "coupon_name": notification.coupon_name,
        "code": notification.code,
        "issued_at": local(notification.issued_at),
        "expires_at": local(notification.expires_at),
    }
