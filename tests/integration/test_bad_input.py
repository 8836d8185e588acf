"""Whatever a client sends: an answer in the one shape or a page, never a 500, never somebody else's data."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
from collections.abc import Callable, Iterator
from urllib.parse import quote, urljoin, urlsplit

import pytest
from flask import Flask
from flask.sessions import SecureCookieSessionInterface
from flask.testing import FlaskClient

from couponapp import settings
from couponapp.issuing.issue import issue
from couponapp.planning import coupons
from couponapp.planning.verify import verify
from couponapp.storage.pool import Pool
from couponapp.web.inputs import MAX_BODY_BYTES
from tests.servers import JWT_SECRET, Answer, Web, fresh_database, running_web, service_environ
from tests.shape import csrf_token, is_page, shape, told

NewCoupon = Callable[..., int]
Bearer = Callable[[str], dict[str, str]]
MakeApp = Callable[..., Flask]

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
JSON = {"Content-Type": "application/json"}

# As they stand in a path. No row can have one of these.
BAD_IDS = [
    "0",
    "-1",
    "01",
    "+1",
    "1.0",
    "1e3",
    "1_0",
    "0x1",
    str(2**63),
    str(2**64),
    "9" * 400,
    quote("１"),
    quote("١"),
    "%00",
    "1%00",
    "%201",
    "1%20",
    "1%0a",
    "%0d%0aSet-Cookie:%20a=b",
    "%ff",
    "%ed%a0%80",
    "null",
    "%3Cscript%3E",
    "1;--",
    "%25",
]


# Ids in paths


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/api/v1/coupons/{}", "COUPON_NOT_FOUND"),
        ("POST", "/api/v1/coupons/{}/issue", "COUPON_NOT_FOUND"),
        ("GET", "/api/v1/me/coupons/{}", "NOT_FOUND"),
    ],
)
def test_an_id_that_no_row_can_have_is_not_found_in_the_api(
    client: FlaskClient, bearer: Bearer, new_coupon: NewCoupon, method: str, path: str, code: str
) -> None:
    new_coupon()
    for bad in [*BAD_IDS, str(2**63 - 1)]:
        response = client.open(path.format(bad), method=method, headers=bearer("kim"))
        assert (404, code) == told(response), bad


def test_an_id_that_no_row_can_have_is_a_not_found_page_for_a_browser(client: FlaskClient) -> None:
    for bad in [*BAD_IDS, str(2**63 - 1)]:
        response = client.get(f"/coupons/{bad}", headers=BROWSER)
        assert response.status_code == 404, bad
        assert is_page(response), bad


def test_a_sensible_id_is_found_at_the_same_addresses(
    client: FlaskClient, bearer: Bearer, new_coupon: NewCoupon
) -> None:
    coupon_id = new_coupon()
    issued = client.post(f"/api/v1/coupons/{coupon_id}/issue", headers=bearer("kim"))
    assert told(issued) == (201, "ISSUED")
    issuance_id = shape(issued)["data"]["issuanceId"]
    assert told(client.get(f"/api/v1/coupons/{coupon_id}")) == (200, "OK")
    assert told(client.get(f"/api/v1/me/coupons/{issuance_id}", headers=bearer("kim"))) == (200, "OK")
    assert client.get(f"/coupons/{coupon_id}", headers=BROWSER).status_code == 200


def test_a_slash_within_an_id_leads_nowhere(client: FlaskClient, bearer: Bearer) -> None:
    for path in ("/api/v1/coupons/1%2Fissue%2F", "/api/v1/coupons/%2e%2e/me", "/api/v1/coupons//issue"):
        assert told(client.post(path, headers=bearer("kim"))) == (404, "NOT_FOUND"), path


# Bodies

BAD_BODIES: dict[str, bytes] = {
    "an array": b"[]",
    "null": b"null",
    "a number": b"1",
    "a text": b'"{}"',
    "half an object": b"{",
    "two objects": b"{}{}",
    "blanks only": b"  ",
    "NaN": b'{"a": NaN}',
    "infinity": b'{"a": -Infinity}',
    "a number of 5,000 digits": b'{"a": ' + b"9" * 5_000 + b"}",
    "the same member twice": b'{"a": 1, "a": 2}',
    "the same member twice, further in": b'{"b": [{"a": 1, "a": 2}]}',
    "NUL in a value": b'{"a": "x\\u0000"}',
    "NUL in a name": b'{"a\\u0000": 1}',
    "NUL, deep": b'{"a": [[{"b": "\\u0000"}]]}',
    "a NUL byte": b'{"a": "\0"}',
    "a lone surrogate": b'{"a": "\\ud800"}',
    "a lone surrogate in a name": b'{"\\udfff": 1}',
    "a surrogate as UTF-8": b'{"a": "\xed\xa0\x80"}',
    "no UTF-8": b'{"a": "\xff"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "deep arrays": b"[" * 8_000 + b"]" * 8_000,
    "deep arrays in an object": b'{"a": ' + b"[" * 8_000 + b"]" * 8_000 + b"}",
    "deep objects": b'{"a":' * 2_700 + b"1" + b"}" * 2_700,
    "arrays without an end": b"[" * MAX_BODY_BYTES,
}


def test_a_body_that_is_not_one_json_object_is_invalid(
    client: FlaskClient, bearer: Bearer, new_coupon: NewCoupon
) -> None:
    path = f"/api/v1/coupons/{new_coupon()}/issue"
    for what, body in BAD_BODIES.items():
        assert len(body) <= MAX_BODY_BYTES, what
        response = client.post(path, data=body, headers={**bearer("kim"), **JSON})
        assert told(response) == (400, "INVALID_REQUEST"), what


def test_a_refused_body_issues_nothing(client: FlaskClient, bearer: Bearer, new_coupon: NewCoupon, pool: Pool) -> None:
    coupon_id = new_coupon(total=10)
    client.post(f"/api/v1/coupons/{coupon_id}/issue", data=b"[]", headers={**bearer("kim"), **JSON})
    assert coupons.show(pool, coupon_id)["remaining"] == 10


GOOD_BODIES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", ""),
    "empty, called text": (b"", "text/plain"),
    "an empty object": (b"{}", "application/json"),
    "members that nobody needs": ('{"쿠폰": ["😀", 1.5, null]}'.encode(), "application/json"),
    "with a charset": (b"{}", "application/json; charset=utf-8"),
    "a pair of surrogates": (b'{"a": "\\ud83d\\ude00"}', "application/json"),
    "as long as may be": (b"{" + b" " * (MAX_BODY_BYTES - 2) + b"}", "application/json"),
}


def test_no_body_or_any_json_object_is_taken(client: FlaskClient, bearer: Bearer, new_coupon: NewCoupon) -> None:
    path = f"/api/v1/coupons/{new_coupon(total=len(GOOD_BODIES))}/issue"
    for what, (body, kind) in GOOD_BODIES.items():
        headers = {**bearer(what), **({"Content-Type": kind} if kind else {})}
        assert told(client.post(path, data=body, headers=headers)) == (201, "ISSUED"), what


def test_a_body_beyond_16_kib_is_too_large(client: FlaskClient, bearer: Bearer, new_coupon: NewCoupon) -> None:
    path = f"/api/v1/coupons/{new_coupon()}/issue"
    bodies = {
        "one byte more": b"{" + b" " * (MAX_BODY_BYTES - 1) + b"}",
        "100,000 nested arrays": b"[" * 100_000 + b"]" * 100_000,
        "20 MB": b'{"a": "' + b"x" * 20_000_000 + b'"}',
    }
    for what, body in bodies.items():
        response = client.post(path, data=body, headers={**bearer("kim"), **JSON})
        assert told(response) == (413, "PAYLOAD_TOO_LARGE"), what


def test_a_body_of_another_type_is_not_supported(client: FlaskClient, bearer: Bearer, new_coupon: NewCoupon) -> None:
    path = f"/api/v1/coupons/{new_coupon()}/issue"
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonx",
        "application/xml",
        "*/*",
        "json",
        ";;;",
        "",
    ]:
        response = client.post(path, data=b"{}", headers={**bearer("kim"), "Content-Type": kind})
        assert told(response) == (415, "UNSUPPORTED_MEDIA_TYPE"), kind


# Headers and query strings


def test_an_idempotency_key_is_1_to_255_visible_ascii_characters(
    client: FlaskClient, bearer: Bearer, new_coupon: NewCoupon
) -> None:
    path = f"/api/v1/coupons/{new_coupon()}/issue"
    for key in ["", " ", "a b", "a\tb", "x" * 256, "é", "\x7f", "\x01", "\xa0"]:
        response = client.post(path, headers={**bearer("kim"), "Idempotency-Key": key})
        assert told(response) == (400, "INVALID_REQUEST"), repr(key)
        assert "Idempotency-Key" in shape(response)["message"], repr(key)


def test_an_odd_idempotency_key_is_just_a_key(client: FlaskClient, bearer: Bearer, new_coupon: NewCoupon) -> None:
    for key in ["x" * 255, "'; DROP TABLE issuances; --".replace(" ", "_"), "%00", "!"]:
        path = f"/api/v1/coupons/{new_coupon()}/issue"
        answers = [client.post(path, headers={**bearer("kim"), "Idempotency-Key": key}) for _ in range(2)]
        assert [told(answer) for answer in answers] == [(201, "ISSUED")] * 2, key
        assert shape(answers[0])["data"] == shape(answers[1])["data"], key


BAD_PAGES = [
    *(f"limit={bad}" for bad in ("0", "-1", "101", "1000", "9" * 400, "abc", "", "1.5", "1e1", "+1", "%201", "%00")),
    f"limit={quote('５')}",
    "limit=%ff",
    "limit=101&limit=5",
    *(f"cursor={bad}" for bad in ("", "!!!", "aQ", "x", "%00", "%ff", "%ed%a0%80", "aTA", "aS0x", "a" * 41, "A" * 400)),
    f"cursor={quote('é')}",
    "cursor=aTk5OTk5OTk5OTk5OTk5OTk5OTk5",  # i99999999999999999999
]


def test_a_bad_limit_or_cursor_is_invalid_and_named(client: FlaskClient, bearer: Bearer) -> None:
    for query in BAD_PAGES:
        response = client.get(f"/api/v1/me/coupons?{query}", headers=bearer("kim"))
        assert told(response) == (400, "INVALID_REQUEST"), query
        assert query.split("=")[0] in shape(response)["message"], query


def test_a_bad_limit_or_cursor_is_an_error_page_for_a_browser(
    client: FlaskClient, token_of: Callable[[str], str]
) -> None:
    client.set_cookie("coupon_token", token_of("kim"))
    for query in BAD_PAGES:
        response = client.get(f"/my-coupons?{query}", headers=BROWSER)
        assert response.status_code == 400, query
        assert is_page(response), query
    assert client.get("/my-coupons?limit=5", headers=BROWSER).status_code == 200


ODD_HEADERS = [
    {"Accept-Language": odd}
    for odd in ("", "*", "xx", "ko;q=", "en;q=nan", "en;q=-1", "e" * 5000, "q=,;;;=", "en;" * 200, "\xff")
] + [{"Accept": odd} for odd in ("", "*", "a/b/c", "text/html;q=x", ";" * 500, "application/json, text/html", "\xff")]


def test_odd_accept_headers_change_nothing_but_words(client: FlaskClient) -> None:
    for headers in ODD_HEADERS:
        assert told(client.get("/api/v1/coupons", headers=headers)) == (200, "OK"), headers
        assert client.get("/", headers=headers).status_code == 200, headers
        assert client.get("/nowhere", headers=headers).status_code == 404, headers


# The Host


FOREIGN_HOSTS = [
    "evil.example",
    "evil.example:80",
    "localhost.evil.example",
    "evil-localhost",
    "user@localhost",
    "localhost,evil.example",
    "localhost:99999",
    "localhost:abc",
    "local host",
    "<script>",
    "é",
    "[::2]",
    "[",
    ".",
    "127.0.0.1.evil.example",
    "0.0.0.0",
]


def test_a_request_that_names_a_foreign_host_is_invalid(client: FlaskClient) -> None:
    for host in FOREIGN_HOSTS:
        for path in ("/api/v1/coupons", "/", "/nowhere", "/openapi.json", "/login"):
            assert told(client.get(path, headers={"Host": host})) == (400, "INVALID_REQUEST"), (host, path)


def test_a_request_that_names_one_of_the_allowed_hosts_is_answered(client: FlaskClient) -> None:
    for host in ("localhost", "localhost:8000", "LOCALHOST", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:8000"):
        assert told(client.get("/api/v1/coupons", headers={"Host": host})) == (200, "OK"), host


def test_an_allowed_host_that_begins_with_a_dot_covers_its_subdomains(
    make_app: MakeApp, environ: dict[str, str]
) -> None:
    client = make_app(settings.load({**environ, "COUPON_ALLOWED_HOSTS": ".Shop.example"})).test_client()
    statuses = {
        host: client.get("/api/v1/coupons", headers={"Host": host}).status_code
        for host in ("shop.example", "a.b.shop.example", "Shop.Example:443", "evilshop.example", "shop.example.evil")
    }
    assert list(statuses.values()) == [200, 200, 200, 400, 400]


def test_probes_are_answered_whatever_the_host(client: FlaskClient) -> None:
    assert told(client.get("/livez", headers={"Host": "10.0.0.7:8000"})) == (200, "OK")


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


# A real server


@pytest.fixture(scope="module")
def web(
    postgres_url: str, template: str, redis_server_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Web]:
    """Gunicorn with the project's settings, for the whole file; its log must stay free of stack traces."""
    directory = tmp_path_factory.mktemp("bad-input")
    with fresh_database(postgres_url, template=template) as url:
        environ = service_environ(url, redis_server_url)
        with running_web(directory, environ, processes=1) as web:
            yield web
        assert "Traceback" not in web.log.read_text()


def raw(web: Web, *pieces: bytes) -> Answer:
    """What comes back for exactly these bytes."""
    with socket.create_connection(("127.0.0.1", web.port), timeout=30) as connection:
        # A server that has refused may close while we are still sending.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces:
                connection.sendall(piece)
        response = http.client.HTTPResponse(connection)
        response.begin()
        return Answer(response.status, dict(response.getheaders()), response.read())


def get(path: bytes, *headers: bytes) -> bytes:
    lines = [b"GET " + path + b" HTTP/1.1", *(headers or (b"Host: localhost",)), b"Connection: close"]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def test_http_1_1_without_a_host_is_invalid(web: Web) -> None:
    assert raw(web, get(b"/api/v1/coupons", b"X: y")).status == 400
    assert told(raw(web, get(b"/api/v1/coupons"))) == (200, "OK")


def test_http_1_0_without_a_host_is_invalid(web: Web) -> None:
    assert told(raw(web, b"GET /api/v1/coupons HTTP/1.0\r\n\r\n")) == (400, "INVALID_REQUEST")


def test_a_foreign_host_is_invalid_on_a_real_server(web: Web) -> None:
    assert told(raw(web, get(b"/api/v1/coupons", b"Host: evil.example"))) == (400, "INVALID_REQUEST")


def test_a_foreign_host_in_an_absolute_address_leads_nowhere(web: Web) -> None:
    answer = raw(web, get(b"http://evil.example/login?next=//evil.example"))
    assert answer.status < 500
    assert b"evil.example" not in answer.body


def test_forwarded_headers_are_not_believed(web: Web) -> None:
    answer = raw(web, get(b"/my-coupons", b"Host: localhost", b"X-Forwarded-Host: evil.example", b"Forwarded: host=e"))
    assert (answer.status, answer.headers["Location"]) == (303, "/login?next=/my-coupons")


@pytest.fixture
def web_bearer(token_of: Callable[[str], str]) -> bytes:
    """An Authorization line that the running server believes: it has the same secret."""
    return f"Authorization: Bearer {token_of('kim')}".encode()


def post(*headers: bytes) -> bytes:
    """The head of an issue request with a JSON body."""
    first = b"POST /api/v1/coupons/4711/issue HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    return first + b"".join(line + b"\r\n" for line in (b"Content-Type: application/json", *headers)) + b"\r\n"


MEGABYTE = b"x" * 1_000_000


def test_a_body_of_20_mb_is_too_large(web: Web, web_bearer: bytes) -> None:
    head = post(web_bearer, b"Content-Length: 20000000")
    assert told(raw(web, head, *[MEGABYTE] * 20)) == (413, "PAYLOAD_TOO_LARGE")


def test_a_body_of_20_mb_in_chunks_is_too_large(web: Web, web_bearer: bytes) -> None:
    head = post(web_bearer, b"Transfer-Encoding: chunked")
    chunk = b"%x\r\n%s\r\n" % (len(MEGABYTE), MEGABYTE)
    assert told(raw(web, head, *[chunk] * 20, b"0\r\n\r\n")) == (413, "PAYLOAD_TOO_LARGE")


def test_a_body_in_chunks_that_begins_like_a_valid_one_is_not_cut_off_to_it(web: Web, web_bearer: bytes) -> None:
    blanks = b" " * MAX_BODY_BYTES
    rest = b"%x\r\n%s\r\n0\r\n\r\n" % (len(blanks), blanks)
    head = post(web_bearer, b"Transfer-Encoding: chunked")
    assert told(raw(web, head, b"2\r\n{}\r\n", rest)) == (413, "PAYLOAD_TOO_LARGE")


def test_a_body_in_chunks_may_be_as_long_as_any(web: Web, web_bearer: bytes) -> None:
    head = post(web_bearer, b"Transfer-Encoding: chunked")
    for body in (b"{}", b"{" + b" " * (MAX_BODY_BYTES - 2) + b"}"):
        chunk = b"%x\r\n%s\r\n" % (len(body), body)
        assert told(raw(web, head, chunk, b"0\r\n\r\n")) == (404, "COUPON_NOT_FOUND")


def test_a_body_with_two_lengths_is_refused(web: Web, web_bearer: bytes) -> None:
    """What a proxy and the server could read differently (request smuggling)."""
    cases = [
        (b"Content-Length: 2", b"Content-Length: 3"),
        (b"Content-Length: 2", b"Transfer-Encoding: chunked"),
        (b"Content-Length: -1",),
        (b"Content-Length: 2x",),
        (b"Content-Length: +2",),
        (b"Transfer-Encoding: xchunked",),
        (b"Transfer-Encoding : chunked",),
    ]
    for headers in cases:
        answer = raw(web, post(web_bearer, *headers), b"{}")
        assert answer.status in (400, 501), headers


def test_a_request_line_that_is_too_long_is_refused(web: Web) -> None:
    for length in (5_000, 100_000):
        answer = raw(web, get(b"/" + b"x" * length))
        assert answer.status in (400, 414), length
        assert b"Traceback" not in answer.body
    assert raw(web, get(b"/" + b"x" * 3_000)).status == 404


def test_too_many_or_too_long_headers_are_refused(web: Web) -> None:
    many = [b"X-%d: y" % number for number in range(200)]
    for headers in (many, [b"X: " + b"y" * 100_000]):
        answer = raw(web, get(b"/livez", b"Host: localhost", *headers))
        assert answer.status in (400, 431)
        assert b"Traceback" not in answer.body


def test_bytes_that_are_no_request_are_refused(web: Web) -> None:
    cases = [
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: a\nY: b\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX Y: b\r\n\r\n",
        b"GET /a\0b HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ]
    for case in cases:
        answer = raw(web, case)
        assert 400 <= answer.status < 500 or answer.status == 505, case
        assert b"Traceback" not in answer.body, case


def test_a_path_that_begins_with_two_slashes_leads_nowhere(web: Web) -> None:
    for path in (b"//evil.example", b"//evil.example/..", b"//api/v1/coupons", b"/api//v1/coupons", b"//livez", b"///"):
        answer = raw(web, get(path))
        assert told(answer) == (404, "NOT_FOUND"), path
        assert "Location" not in answer.headers, path


def test_a_line_break_in_an_address_never_becomes_a_header(web: Web) -> None:
    for path in (
        b"/login?next=/%0d%0aSet-Cookie:%20evil=1",
        b"/coupons/%0d%0aSet-Cookie:%20evil=1",
        b"/my-coupons?cursor=%0d%0aSet-Cookie:%20evil=1",
        b"/%0d%0aSet-Cookie:%20evil=1",
        b"/%E5%98%8A%E5%98%8DSet-Cookie:%20evil=1",
    ):
        answer = raw(web, get(path))
        assert answer.status < 500, path
        assert "evil" not in str(answer.headers), path


def test_bytes_in_a_path_that_are_no_utf_8_are_not_found(web: Web) -> None:
    for path in (b"/\xff", b"/%ff", b"/api/v1/coupons/\xff\xfe", b"/\xed\xa0\x80"):
        assert raw(web, get(path)).status in (400, 404), path


def test_a_client_that_leaves_in_the_middle_harms_nobody(web: Web, web_bearer: bytes) -> None:
    for part in (post(web_bearer, b"Content-Length: 100") + b"{", get(b"/api/v1/coupons")[:20], b""):
        with socket.create_connection(("127.0.0.1", web.port), timeout=30) as connection:
            connection.sendall(part)
    assert told(raw(web, get(b"/api/v1/coupons"))) == (200, "OK")


def test_nothing_of_all_this_breaks_an_invariant(
    client: FlaskClient, bearer: Bearer, new_coupon: NewCoupon, pool: Pool
) -> None:
    path = f"/api/v1/coupons/{new_coupon(total=3)}/issue"
    for number, body in enumerate(BAD_BODIES.values()):
        client.post(path, data=body, headers={**bearer(f"user-{number}"), **JSON})
        client.post(path, data=json.dumps({"userId": "kim"}), headers={**bearer(f"user-{number}"), **JSON})
    report = verify(pool)
    assert report.clean
    assert report.coupons[0]["issued"] == 3
