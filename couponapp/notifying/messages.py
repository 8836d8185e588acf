"""What a holder reads."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from couponapp.notifying.outbox import Notice

_ISSUED = """\
받는 사람: {user_id}
제목: [{coupon_name}] 쿠폰이 발급되었습니다

쿠폰: {coupon_name}
코드: {code}
발급: {issued_at}
만료: {expires_at}

--
To: {user_id}
Subject: [{coupon_name}] Your coupon has been issued

Coupon: {coupon_name}
Code: {code}
Issued: {issued_at}
Expires: {expires_at}
"""


def render(notice: Notice, time_zone: ZoneInfo) -> str:
    """The message in Korean and English, times in the given zone."""

    def local(moment: object) -> str:
        return f"{moment:%Y-%m-%d %H:%M:%S %Z}"

    return _ISSUED.format(
        user_id=notice.user_id,
        coupon_name=notice.coupon_name,
        code=notice.code,
        issued_at=local(notice.issued_at.astimezone(time_zone)),
        expires_at=local(notice.expires_at.astimezone(time_zone)),
    )
