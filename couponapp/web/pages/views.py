"""The server-rendered pages. They work without JavaScript; every form post ends in a redirect."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from flask import Blueprint, Response, flash, make_response, redirect, render_template, request, session, url_for
from werkzeug.wrappers import Response as BaseResponse

from couponapp.auth import tokens
from couponapp.errors import CouponNotFound, TooManyRequests, Unauthenticated, Unavailable
from couponapp.issuing.catalogue import Coupon, Status
from couponapp.issuing.statement import Outcome
from couponapp.web import held_coupons, inputs
from couponapp.web.current import services
from couponapp.web.error_handlers import report_unavailable
from couponapp.web.identity import cookie_user
from couponapp.web.limits import limited, per_address, per_visitor
from couponapp.web.responses import language, message
from couponapp.web.translations import word

pages = Blueprint("pages", __name__)
login = Blueprint("login", __name__)

DEMO_SESSION_S = 24 * 3600
# Open coupons come first; among equals, what opens or has opened closest to now.
_ORDER = (Status.OPEN, Status.SCHEDULED, Status.PAUSED, Status.SOLD_OUT, Status.CLOSED)
_WEEKDAYS = "월화수목금토일"


@pages.get("/")
def home() -> Response:
    """Show the coupons that run or are to come."""
    mono_s = services().catalogue.mono_s()

    def rank(coupon: Coupon) -> tuple[int, timedelta]:
        return _ORDER.index(coupon.status(mono_s)), abs(coupon.opens_at - coupon.now(mono_s))

    return _page("home.html", coupons=sorted(services().catalogue.current(), key=rank))


@pages.get("/coupons/<coupon_id>")
def show_coupon(coupon_id: str) -> Response:
    """Show one coupon and its button."""
    coupon = services().catalogue.coupon(inputs.parse_coupon_id(coupon_id))
    if coupon is None:
        raise CouponNotFound()
    return _page("coupon.html", coupon=coupon)


@pages.post("/coupons/<coupon_id>/issue")
def issue_coupon(coupon_id: str) -> BaseResponse:
    """Issue a coupon to the visitor. The page that the redirect leads to shows the outcome."""
    user_id = cookie_user()
    if user_id is None:
        return _to_login(url_for(".show_coupon", coupon_id=coupon_id))
    try:
        number = inputs.parse_coupon_id(coupon_id)
        code = services().issuing.issue(number, user_id, address=request.remote_addr or "").outcome.value
    except (TooManyRequests, Unavailable) as error:
        code = error.code
        if isinstance(error, Unavailable):
            report_unavailable(error)
    if code == Outcome.COUPON_NOT_FOUND:
        raise CouponNotFound()
    flash(code)
    if code in (Outcome.ISSUED, Outcome.ALREADY_ISSUED):
        return redirect(url_for(".my_coupons"), 303)
    return redirect(url_for(".show_coupon", coupon_id=coupon_id), 303)


@pages.get("/my-coupons")
@limited("limit_my_coupons", per_visitor)
def my_coupons() -> BaseResponse:
    """Show what the visitor holds, newest first."""
    user_id = cookie_user()
    if user_id is None:
        return _to_login(url_for(".my_coupons"))
    held, next_cursor = held_coupons.requested_page(user_id)
    return _page("my_coupons.html", held=held, next_cursor=next_cursor, now=datetime.now(UTC))


@login.get("/login")
def ask() -> Response:
    """Show the form of the demo login."""
    return _page("login.html", next=_safe_next(request.args.get("next")), wrong=False)


@login.post("/login")
@limited("limit_login", per_address)
def log_in() -> BaseResponse:
    """Log in under any name: sign a token for it and keep it in the pages' cookie."""
    target = _safe_next(request.form.get("next"))
    settings = services().settings
    try:
        token = tokens.sign(settings, request.form.get("user", "").strip(), ttl_s=DEMO_SESSION_S)
    except (Unauthenticated, UnicodeError):
        return make_response(_page("login.html", next=target, wrong=True), 400)
    session.clear()
    answer = redirect(target, 303)
    answer.set_cookie(
        settings.cookie_name,
        token,
        max_age=DEMO_SESSION_S,
        httponly=True,
        secure=settings.cookie_secure,
        samesite="Lax",
    )
    return answer


@login.post("/logout")
def log_out() -> BaseResponse:
    """Log out: drop the cookie and the session."""
    session.clear()
    answer = redirect(url_for("pages.home"), 303)
    answer.delete_cookie(services().settings.cookie_name, httponly=True, samesite="Lax")
    return answer


@pages.app_context_processor
def _for_templates() -> dict[str, Any]:
    return {
        "word": word,
        "message": message,
        "language": language(),
        "user_id": cookie_user(),
        "demo_login": services().settings.demo_login,
        "mono_s": services().catalogue.mono_s(),
        "Status": Status,
    }


@pages.app_template_filter("local_time")
def _local_time(moment: datetime) -> str:
    local = moment.astimezone(services().settings.time_zone)
    clock = f"{local:%H:%M:%S}" if local.second else f"{local:%H:%M}"
    if language() == "en":
        return f"{local.day} {local:%b %Y}, {clock} {local:%Z}"
    return f"{local.year}. {local.month}. {local.day}. ({_WEEKDAYS[local.weekday()]}) {clock}"


def _page(template: str, **values: Any) -> Response:
    response = make_response(render_template(template, **values))
    response.headers["Cache-Control"] = "no-store"  # it names the visitor
    response.headers["Vary"] = "Cookie, Accept-Language"
    return response


def _to_login(target: str) -> BaseResponse:
    if not services().settings.demo_login:
        raise Unauthenticated()
    return redirect(url_for("login.ask", next=target), 303)


def _safe_next(target: str | None) -> str:
    """Return a path on this site, or the home page: never another host, never a header of its own."""
    home_page = url_for("pages.home")
    if not target or not target.isprintable() or not target.startswith("/"):
        return home_page
    # Browsers read a backslash like a slash: «/\host» is another host.
    if "\\" in target or target.startswith("//"):
        return home_page
    url = urlsplit(target)
    return target if not url.scheme and not url.netloc else home_page
