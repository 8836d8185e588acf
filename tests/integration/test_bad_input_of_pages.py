"""Whatever a browser sends: a page, never somebody else's data, never another site."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import urljoin, urlsplit

import pytest
from flask import Flask
from flask.sessions import SecureCookieSessionInterface
from flask.testing import FlaskClient

from couponapp.issuing.statement import issue
from couponapp.planning import coupons
from couponapp.storage.pool import Pool
from tests.support.servers import JWT_SECRET
from tests.support.shape import csrf_token, is_page, shape

NewCoupon = Callable[..., int]
Bearer = Callable[[str], dict[str, str]]

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


# Redirects


EVIL_TARGETS = [
    "//evil.example",
    "///evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "\t//evil.example",
    " //evil.example",
    "https://evil.example",
    "https:evil.example",
    "http:///evil.example",
    "javascript:alert(1)",
    "data:text/html,x",
    "evil.example",
    "@evil.example",
    "/\r\nSet-Cookie: a=b",
    "/\0",
    "/\u2028/evil.example",
    "",
]


def log_in(client: FlaskClient, user: str, target: str) -> str:
    """Through the form; returns where it leads to."""
    data = {"csrf_token": csrf_token(client.get("/login")), "user": user, "next": target}
    response = client.post("/login", data=data)
    assert response.status_code == 303, response.get_data(as_text=True)
    assert [cookie.split("=")[0] for cookie in response.headers.getlist("Set-Cookie")] == [
        "coupon_token",
        "coupon_session",
    ]
    return response.headers["Location"]


def host_as_browsers_read_it(location: str) -> str | None:
    cleaned = location.strip().replace("\\", "/").translate({9: None, 10: None, 13: None})
    cleaned = re.sub("^/{2,}", "//", cleaned)
    return urlsplit(urljoin("http://localhost/login", cleaned)).hostname


def test_logging_in_never_leads_to_another_site(client: FlaskClient) -> None:
    for target in EVIL_TARGETS:
        assert log_in(client, "kim", target) == "/", target


def test_what_counts_as_another_site_is_what_browsers_make_of_it() -> None:
    for target in EVIL_TARGETS[:6]:
        assert host_as_browsers_read_it(target) == "evil.example", target


def test_logging_in_leads_back_to_where_the_visitor_came_from(client: FlaskClient) -> None:
    for target in ("/my-coupons", "/coupons/1?a=b&c=d", "/%0d%0aSet-Cookie:a=b", "/a//b", "/?next=//evil.example"):
        location = log_in(client, "kim", target)
        assert host_as_browsers_read_it(location) == "localhost", target
        assert location == target


def test_the_login_form_holds_no_foreign_target(client: FlaskClient) -> None:
    for target in EVIL_TARGETS:
        text = client.get("/login", query_string={"next": target}).get_data(as_text=True)
        assert '<input type="hidden" name="next" value="/">' in text, target
        assert "evil" not in text, target


def test_a_user_name_that_is_none_is_refused_with_the_form(client: FlaskClient) -> None:
    for name in ("", "   ", "x" * 129, "a\tb", "a\0b", "a\u200fb"):
        data = {"csrf_token": csrf_token(client.get("/login")), "user": name, "next": "/"}
        response = client.post("/login", data=data, headers=BROWSER)
        assert response.status_code == 400, repr(name)
        assert is_page(response)
        assert "coupon_token" not in str(response.headers.getlist("Set-Cookie"))


# What is shown


SCRIPT = "<script>alert('쿠폰')</script>\"&"


def test_a_script_in_a_coupons_name_is_text_on_every_page(client: FlaskClient, new_coupon: NewCoupon) -> None:
    coupon_id = new_coupon(name=SCRIPT)
    log_in(client, "kim", "/")
    token = csrf_token(client.get(f"/coupons/{coupon_id}"))
    client.post(f"/coupons/{coupon_id}/issue", data={"csrf_token": token})
    for path in ("/", f"/coupons/{coupon_id}", "/my-coupons"):
        text = client.get(path).get_data(as_text=True)
        assert "&lt;script&gt;alert(" in text, path
        assert "<script>" not in text, path


def test_a_script_in_a_coupons_name_is_json_text_in_the_api(client: FlaskClient, new_coupon: NewCoupon) -> None:
    response = client.get(f"/api/v1/coupons/{new_coupon(name=SCRIPT)}")
    assert shape(response)["data"]["name"] == SCRIPT
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_a_script_in_a_users_name_is_text_on_every_page(client: FlaskClient) -> None:
    log_in(client, SCRIPT, "/")
    for path in ("/", "/my-coupons", "/login", "/nowhere"):
        text = client.get(path, headers=BROWSER).get_data(as_text=True)
        assert "&lt;script&gt;alert(" in text, path
        assert "<script>" not in text, path


def test_a_script_in_an_address_comes_back_as_text_only(client: FlaskClient) -> None:
    for path in ("/%22%3E%3Cscript%3E", "/coupons/%22%3E%3Cscript%3E", "/login?next=/%22%3E%3Cscript%3E"):
        assert "<script>" not in client.get(path, headers=BROWSER).get_data(as_text=True), path


# Cookies


ODD_COOKIES = ["garbage", "a.b.c", "..", "=", '"', "\xff\xfe", "x" * 9_000, "%00", "{}", "eyJhbGciOiJub25lIn0.e30."]


@pytest.mark.parametrize("name", ["coupon_token", "coupon_session"])
def test_a_visitor_with_garbage_in_a_cookie_is_just_nobody(app: Flask, name: str) -> None:
    client = app.test_client(use_cookies=False)  # so that the header goes out as it stands here
    for odd in ODD_COOKIES:
        headers = {**BROWSER, "Cookie": f"{name}={odd}"}
        home, mine = client.get("/", headers=headers), client.get("/my-coupons", headers=headers)
        assert (home.status_code, mine.status_code) == (200, 303), odd
        assert mine.headers["Location"] == "/login?next=/my-coupons", odd


def test_a_cookie_header_that_is_garbage_is_no_cookie(app: Flask) -> None:
    client = app.test_client(use_cookies=False)
    for odd in (";;;===", "\xff", "a" * 8_000, "coupon_token", '"', "; ; ;"):
        assert client.get("/", headers={**BROWSER, "Cookie": odd}).status_code == 200, odd


def notice_of_forged_session(app: Flask, key: str) -> bool:
    """A session that says «issued», signed with this key: does the page believe it?"""
    forger = Flask("forger")
    forger.secret_key = key
    serializer = SecureCookieSessionInterface().get_signing_serializer(forger)
    assert serializer is not None
    forged = serializer.dumps({"_flashes": [("message", "ISSUED")]})
    page = app.test_client(use_cookies=False).get("/", headers={"Cookie": f"coupon_session={forged}"})
    return 'data-code="ISSUED"' in page.get_data(as_text=True)


def test_a_session_that_somebody_else_signed_says_nothing(app: Flask) -> None:
    assert not notice_of_forged_session(app, JWT_SECRET)
    # The negative control: the service's own key is believed.
    assert notice_of_forged_session(app, str(app.config["SECRET_KEY"]))


def test_a_form_without_its_token_does_nothing(client: FlaskClient, new_coupon: NewCoupon, pool: Pool) -> None:
    coupon_id = new_coupon(total=10)
    log_in(client, "kim", "/")
    for token in ["", "garbage", "\xff", "x" * 15_000, "%00"]:
        response = client.post(f"/coupons/{coupon_id}/issue", data={"csrf_token": token}, headers=BROWSER)
        assert response.status_code == 400, token[:20]
        assert is_page(response), token[:20]
    assert coupons.show(pool, coupon_id)["remaining"] == 10


def test_a_form_that_is_too_large_or_no_form_is_refused_with_a_page(client: FlaskClient) -> None:
    forms: dict[str, tuple[bytes, str, int]] = {
        "20 MB": (b"user=" + b"x" * 20_000_000, "application/x-www-form-urlencoded", 413),
        "100 parts": (
            b"".join(b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n' for _ in range(100)) + b"--x--",
            "multipart/form-data; boundary=x",
            413,
        ),
        "multipart without a boundary": (b"--x", "multipart/form-data", 400),
        "not UTF-8": (b"user=%ff&next=%ff\xff", "application/x-www-form-urlencoded", 400),
        "JSON": (b"{}", "application/json", 400),
    }
    for what, (body, kind, status) in forms.items():
        response = client.post("/login", data=body, headers={**BROWSER, "Content-Type": kind})
        assert response.status_code == status, what
        assert is_page(response), what


# Somebody else's


def test_no_answer_holds_what_somebody_else_holds(
    client: FlaskClient, bearer: Bearer, new_coupon: NewCoupon, pool: Pool, token_of: Callable[[str], str]
) -> None:
    coupon_id = new_coupon()
    held = issue(pool, coupon_id, "kim").issuance
    assert held is not None
    client.set_cookie("coupon_token", token_of("lee"))
    paths = ["/", "/my-coupons", f"/coupons/{coupon_id}", "/api/v1/coupons", f"/api/v1/coupons/{coupon_id}"]
    paths += [f"/api/v1/me/coupons{rest}" for rest in ("", f"/{held.id}", "?user=kim", "?user_id=kim&sub=kim")]
    for path in paths:
        assert held.code not in client.get(path, headers=bearer("lee")).get_data(as_text=True), path
    # The negative control: the holder sees it.
    assert held.code in client.get("/api/v1/me/coupons", headers=bearer("kim")).get_data(as_text=True)
