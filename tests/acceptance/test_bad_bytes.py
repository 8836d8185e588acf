"""Whatever comes over the wire to a real server: an answer in the one shape, and the server lives on."""

from __future__ import annotations

import contextlib
import http.client
import socket
from collections.abc import Callable, Iterator

import pytest

from couponapp.web.inputs import MAX_BODY_BYTES
from tests.support.databases import Databases
from tests.support.servers import Answer, Web, running_web, service_environ
from tests.support.shape import told


@pytest.fixture(scope="module")
def web(databases: Databases, redis_server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """Gunicorn with the project's settings, for the whole file; its log must stay free of stack traces."""
    directory = tmp_path_factory.mktemp("bad-input")
    with databases.fresh() as url:
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
