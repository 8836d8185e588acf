"""The pages' words, Korean first. What an outcome is called lies in `couponapp.web.answers`."""

from __future__ import annotations

from couponapp.web.answers import language

WORDS: dict[str, tuple[str, str]] = {
    "site": ("쿠폰", "Coupons"),
    "tagline": ("선착순 쿠폰", "First come, first served"),
    "events": ("진행 중인 쿠폰", "Coupons"),
    "no_events": ("지금은 진행 중인 쿠폰이 없습니다.", "There are no coupons right now."),
    "my_coupons": ("내 쿠폰", "My coupons"),
    "no_coupons": ("아직 받은 쿠폰이 없습니다.", "You hold no coupons yet."),
    "see_events": ("쿠폰 보러 가기", "See the coupons"),
    "log_in": ("로그인", "Log in"),
    "log_out": ("로그아웃", "Log out"),
    "log_in_to_get": ("로그인하고 쿠폰 받기", "Log in to get it"),
    "log_in_with_shop": ("쇼핑몰에서 로그인한 뒤 다시 열어 주세요.", "Log in at the shop and open this page again."),
    "demo_login": ("데모 로그인", "Demo login"),
    "demo_hint": ("비밀번호 없이 아무 이름으로나 로그인할 수 있습니다.", "Any name will do, there is no password."),
    "user_name": ("사용자 이름", "User name"),
    "bad_user_name": (
        "1~128자의 보이는 문자만 쓸 수 있습니다.",
        "A user name has 1 to 128 printable characters.",
    ),
    "get_coupon": ("쿠폰 받기", "Get the coupon"),
    "details": ("자세히 보기", "Details"),
    "remaining": ("남은 수량", "Remaining"),
    "of": ("/", "of"),
    "opens_at": ("시작", "Opens"),
    "closes_at": ("종료", "Closes"),
    "valid": ("유효 기간", "Valid for"),
    "days": ("일", "days"),
    "opens_in": ("시작까지", "Opens in"),
    "code": ("쿠폰 코드", "Code"),
    "issued_at": ("발급", "Issued"),
    "expires_at": ("만료", "Expires"),
    "more": ("더 보기", "More"),
    "back": ("처음으로", "Back to the start"),
    "try_again": ("다시 시도", "Try again"),
    "status_SCHEDULED": ("오픈 예정", "Coming"),
    "status_OPEN": ("진행 중", "Open"),
    "status_SOLD_OUT": ("소진", "Sold out"),
    "status_PAUSED": ("일시 중지", "Paused"),
    "status_CLOSED": ("종료", "Closed"),
}


def word(key: str) -> str:
    """A page's word in the request's language."""
    korean, english = WORDS[key]
    return english if language() == "en" else korean
