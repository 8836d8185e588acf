"""The pages' texts, Korean first. The messages of outcomes are in `couponapp.web.responses`."""

from __future__ import annotations

from couponapp.web.responses import language

WORDS: dict[str, tuple[str, str]] = {
    "site": ("선착순 쿠폰", "Coupons"),
    "events": ("쿠폰 이벤트", "Coupon events"),
    "rule": ("선착순으로 한 분께 한 장씩 드립니다.", "First come, first served: one for each person."),
    "no_events": ("지금은 진행 중인 쿠폰이 없습니다.", "There are no coupons right now."),
    "my_coupons": ("내 쿠폰", "My coupons"),
    "no_coupons": ("아직 받은 쿠폰이 없습니다.", "You hold no coupons yet."),
    "see_events": ("쿠폰 보러 가기", "See the coupons"),
    "already_hold": ("이미 받으셨나요?", "Do you hold it already?"),
    "see_my_coupons": ("내 쿠폰에서 보기", "See my coupons"),
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
    "stale": ("잠시 전 수량입니다.", "As of a moment ago."),
    "opens_at": ("시작", "Opens"),
    "closes_at": ("종료", "Closes"),
    "valid": ("유효 기간", "Valid for"),
    "valid_day": ("발급 후 {}일", "{} day from issue"),
    "valid_days": ("발급 후 {}일", "{} days from issue"),
    "days": ("일", "d"),
    "opens_in": ("시작까지", "Opens in"),
    "opened": ("지금 받을 수 있습니다!", "You can get it now!"),
    "no_reload": (
        "새로고침할 필요 없이, 시작되면 바로 받을 수 있습니다.",
        "No need to reload: the button works as soon as it opens.",
    ),
    "code": ("쿠폰 코드", "Code"),
    "issued_at": ("발급", "Issued"),
    "expires_at": ("만료", "Expires"),
    "expired_at": ("만료됨", "Expired"),
    "more": ("더 보기", "More"),
    "back": ("처음으로", "Back to the start"),
    "try_again": ("다시 시도", "Try again"),
    "stale_form": (
        "페이지가 더 이상 유효하지 않습니다. 다시 시도해 주세요.",
        "This page is no longer valid. Please try again.",
    ),
    "status_SCHEDULED": ("오픈 예정", "Coming"),
    "status_OPEN": ("진행 중", "Open"),
    "status_SOLD_OUT": ("소진", "Sold out"),
    "status_PAUSED": ("일시 중지", "Paused"),
    "status_CLOSED": ("종료", "Closed"),
    "over_SOLD_OUT": ("선착순 마감", "All gone"),
    "over_PAUSED": ("잠시 멈춤", "Paused for now"),
    "over_CLOSED": ("기간 종료", "Over"),
}


def word(key: str) -> str:
    """Return a page's text in the request's language."""
    korean, english = WORDS[key]
    return english if language() == "en" else korean
