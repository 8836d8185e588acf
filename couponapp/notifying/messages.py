"""What a holder reads, in Korean and English: who they are is all that is known of a holder."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from couponapp.notifying.outbox import Notice

_templates = Environment(
    loader=PackageLoader("couponapp.notifying"),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    keep_trailing_newline=True,
)

# Korean, English; by the kind of event, as the templates are.
_SUBJECTS = {"issuance.issued": ("[{}] 쿠폰이 발급되었습니다", "[{}] Your coupon has been issued")}


@dataclass(frozen=True)
class Message:
    """A message, ready to be sent."""

    subject: str
    text: str
    html: str


def render(notice: Notice, time_zone: ZoneInfo) -> Message:
    """The message as e-mail has it, times in the given zone."""
    korean, english = _subjects(notice)
    subject = f"{korean} / {english.removeprefix(f'[{notice.coupon_name}] ')}"
    words = {"subject": subject, **_words(notice, time_zone)}
    return Message(
        subject, *(_templates.get_template(f"{notice.kind}.{form}").render(words) for form in ("txt", "html"))
    )


def render_file(notice: Notice, time_zone: ZoneInfo) -> str:
    """The message as the file channel leaves it: under a head like that of a letter."""
    korean, english = _subjects(notice)
    text = _templates.get_template(f"{notice.kind}.txt").render(_words(notice, time_zone))
    head = f"받는 사람: {notice.user_id}\n제목: {korean}\n\n"
    return head + text.replace("--\n", f"--\nTo: {notice.user_id}\nSubject: {english}\n\n", 1)


def _subjects(notice: Notice) -> tuple[str, str]:
    korean, english = _SUBJECTS[notice.kind]
    return korean.format(notice.coupon_name), english.format(notice.coupon_name)


def _words(notice: Notice, time_zone: ZoneInfo) -> dict[str, str]:
    def local(moment: datetime) -> str:
        return f"{moment.astimezone(time_zone):%Y-%m-%d %H:%M:%S %Z}"

    return {
        "user_id": notice.user_id,
        "coupon_name": notice.coupon_name,
        "code": notice.code,
        "issued_at": local(notice.issued_at),
        "expires_at": local(notice.expires_at),
    }
