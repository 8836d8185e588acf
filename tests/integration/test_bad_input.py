"""Whatever a client sends: an answer in the one shape or a page, never a 500, never somebody else's data."""

from __future__ import annotations

import json
from collections.abc import Callable
from urllib.parse import quote

import pytest
from flask import Flask
from flask.testing import FlaskClient

from couponapp.config import settings
from couponapp.operating.verify import verify
from couponapp.planning import coupons
from couponapp.storage.pool import Pool
from couponapp.web.inputs import MAX_BODY_BYTES
from tests.support.shape import is_page, shape, told

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
