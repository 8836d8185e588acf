"""Requests that the server refuses before they reach the application: early, and in the API's shape."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient

from couponapp.server.client_connection import MAX_HEAD_BYTES
from couponapp.web.inputs import MAX_BODY_BYTES
from tests.support.databases import Databases
from tests.support.servers import Answer, Web, running_web, service_environ, wait_until
from tests.support.shape import shape, told

BOUND_S = 30.0
ISSUE = b"POST /api/v1/coupons/4711/issue HTTP/1.1\r\nHost: localhost\r\n"
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
TOO_LARGE = (413, "PAYLOAD_TOO_LARGE")
INVALID = (400, "INVALID_REQUEST")


@pytest.fixture(scope="module")
def web(databases: Databases, redis_server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """One process for the whole file, whose log must stay free of stack traces."""
    with databases.fresh() as url:
        environ = service_environ(url, redis_server_url)
        with running_web(tmp_path_factory.mktemp("worker"), environ, processes=1) as web:
            yield web
        assert "Traceback" not in web.log.read_text()


@pytest.fixture
def authorization(token_of: Callable[[str], str]) -> bytes:
    """A header line that the running server believes: it has the same secret."""
    return f"Authorization: Bearer {token_of('kim')}\r\nContent-Type: application/json\r\n".encode()


def exchange(web: Web, sent: bytes) -> list[Answer]:
    """Send this, and nothing more; all answers until the server closes."""
    with socket.create_connection(("127.0.0.1", web.port), timeout=BOUND_S) as client:
        client.sendall(sent)
        return answers(b"".join(iter(lambda: client.recv(65_536), b"")))


def answers(received: bytes) -> list[Answer]:
    found = []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        length = int(headers.get("Content-Length", 0))
        found.append(Answer(int(status.split()[1]), headers, rest[:length]))
        received = rest[length:]
    return found


def endless(web: Web, head: bytes, part: bytes) -> tuple[int, bytes]:
    """Send the head, then this part again and again: how much the server let through, and what it said."""
    sent = 0
    with socket.create_connection(("127.0.0.1", web.port), timeout=BOUND_S) as client:
        client.sendall(head)
        give_up_s = time.monotonic() + BOUND_S
        try:
            while time.monotonic() < give_up_s:
                client.sendall(part)
                sent += len(part)
        except (BrokenPipeError, ConnectionResetError):
            pass
        try:
            return sent, client.recv(65_536)
        except ConnectionResetError:
            return sent, b""


# In the one shape


def test_refusals_of_the_server_have_the_apis_shape(web: Web) -> None:
    cases = {
        b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n": (414, "URI_TOO_LONG"),
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 20_000 + b"\r\n\r\n": (431, "INVALID_REQUEST"),
        b"<script>alert(1)</script>\r\n\r\n": INVALID,
        b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n": INVALID,
        b"GET / HTTP/1.1\r\nHost: localhost\r\nBad Header: x\r\n\r\n": INVALID,
        b"GET / HTTP/1.1\r\nHost: localhost\r\nExpect: the unexpected\r\n\r\n": INVALID,
    }
    for request, expected in cases.items():
        (answer,) = exchange(web, request)
        assert told(answer) == expected, request
        assert shape(answer)["data"] is None
        assert b"script" not in answer.body


def test_a_refusal_is_in_the_requested_language(web: Web) -> None:
    for line, words in {
        b"": "요청 본문이 너무 큽니다.",
        b"Accept-Language: en\r\n": "The request body is too large.",
        b"Accept-Language: de, en;q=0.5, ko;q=0.1\r\n": "The request body is too large.",
        b"Accept-Language: ;q=,,,\xff\r\n": "요청 본문이 너무 큽니다.",
    }.items():
        (answer,) = exchange(web, ISSUE + line + b"Content-Length: 20000000\r\n\r\n")
        assert shape(answer)["message"] == words, line


def test_refusals_are_counted(web: Web) -> None:
    def count() -> float:
        lines = web.request("GET", "/metrics").body.decode().splitlines()
        name = 'coupon_http_requests_total{route="none",status="413"} '
        return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))

    before = count()
    exchange(web, ISSUE + b"Content-Length: 20000000\r\n\r\n")
    assert count() == before + 1


def test_options_is_a_method_like_any_other(client: FlaskClient) -> None:
    answer = client.options("/api/v1/coupons")
    assert answer.status_code == 405
    assert answer.get_json()["code"] == "METHOD_NOT_ALLOWED"


# Too large


def test_a_body_that_is_announced_as_too_large_is_refused_before_it_is_sent(web: Web, authorization: bytes) -> None:
    for length in (MAX_BODY_BYTES + 1, 20_000_000, 10**18):
        announced = b"Content-Length: %d\r\n\r\n" % length
        for head in (ISSUE + authorization, ISSUE, LIVEZ[:-2], b"POST /login HTTP/1.1\r\nHost: localhost\r\n"):
            (answer,) = exchange(web, head + announced)
            assert told(answer) == TOO_LARGE, (head, length)
            assert answer.headers["Connection"] == "close"


def test_a_body_in_chunks_is_cut_off_at_the_limit(web: Web, authorization: bytes) -> None:
    chunk = b"%x\r\n%s\r\n" % (8192, b"x" * 8192)
    sent, answer = endless(web, ISSUE + authorization + b"Transfer-Encoding: chunked\r\n\r\n", chunk)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert sent < 8_000_000  # what the kernel's buffers take


def test_one_endless_chunk_is_cut_off_too(web: Web, authorization: bytes) -> None:
    head = ISSUE + authorization + b"Transfer-Encoding: chunked\r\n\r\nffffffffff\r\n"
    sent, answer = endless(web, head, b"x" * 8192)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert sent < 8_000_000


def test_a_head_is_cut_off_at_the_limit(web: Web) -> None:
    line = b"X: " + b"y" * 4_000 + b"\r\n"
    for part in (line, b"y" * 8192, b"X: y\r\n" * 1000):
        sent, answer = endless(web, LIVEZ[:-2] + b"X-First: ", part)
        assert answer.startswith(b"HTTP/1.1 431 ")
        assert sent < 8_000_000


def test_a_head_may_be_as_long_as_a_few_large_cookies(web: Web) -> None:
    lines = b"".join(b"X-%d: %s\r\n" % (number, b"y" * 4_000) for number in range(5))
    (answer,) = exchange(web, LIVEZ[:-2] + lines + b"Connection: close\r\n\r\n")
    assert told(answer) == (200, "OK")
    assert len(lines) < MAX_HEAD_BYTES


def test_more_headers_than_any_client_of_ours_sends_are_refused(web: Web) -> None:
    (answer,) = exchange(web, LIVEZ[:-2] + b"X: y\r\n" * 100 + b"\r\n")
    assert told(answer) == (431, "INVALID_REQUEST")


def test_lines_around_chunks_are_bounded_too(web: Web, authorization: bytes) -> None:
    head = ISSUE + authorization + b"Transfer-Encoding: chunked\r\n\r\n"
    for begin, part in {b"2;": b"x" * 8192, b"2\r\n{}\r\n0\r\n": b"X-Trailer: y\r\n" * 1000}.items():
        sent, answer = endless(web, head + begin, part)
        assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 ")), begin
        assert sent < 8_000_000


# Expect: 100-continue


def test_a_client_that_expects_100_continue_gets_it_once(web: Web, authorization: bytes) -> None:
    head = ISSUE + authorization + b"Connection: close\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    with socket.create_connection(("127.0.0.1", web.port), timeout=BOUND_S) as client:
        client.sendall(head)
        assert client.recv(65_536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"{}")
        (answer,) = answers(b"".join(iter(lambda: client.recv(65_536), b"")))
    assert told(answer) == (404, "COUPON_NOT_FOUND")


def test_it_gets_413_instead_if_the_body_is_too_large(web: Web, authorization: bytes) -> None:
    (answer,) = exchange(web, ISSUE + authorization + b"Content-Length: 20000\r\nExpect: 100-continue\r\n\r\n")
    assert told(answer) == TOO_LARGE


# What a proxy and the server could read differently (request smuggling)

SMUGGLED = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"
AMBIGUOUS: dict[str, bytes] = {
    "a length and chunks": b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and a length": b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 0\r\nContent-Length: 44\r\n\r\n",
    "the same length twice": b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "a list of lengths": b"Content-Length: 0, 0\r\n\r\n",
    "a signed length": b"Content-Length: +0\r\n\r\n",
    "a negative length": b"Content-Length: -1\r\n\r\n",
    "a hexadecimal length": b"Content-Length: 0x0\r\n\r\n",
    "a length with a blank": b"Content-Length: 0 0\r\n\r\n",
    "a superscript length": b"Content-Length: \xb2\r\n\r\n",
    "a length of 5,000 digits": b"Content-Length: " + b"9" * 5_000 + b"\r\n\r\n",
    "no length": b"Content-Length:\r\n\r\n",
    "chunks twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks in chunks": b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunks not last": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "something like chunks": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunks with a vertical tab": b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "a blank before the colon": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a folded line": b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a bare line feed": b"X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a bare carriage return": b"X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a length in the trailer": b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 44\r\n\r\n",
    "a chunk of a signed size": b"Transfer-Encoding: chunked\r\n\r\n+0\r\n\r\n",
    "a chunk of a hexadecimal size": b"Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n",
    "a chunk that is longer than it says": b"Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n",
}


def test_an_ambiguous_body_is_refused_and_nothing_after_it_is_a_request(web: Web, authorization: bytes) -> None:
    for what, rest in AMBIGUOUS.items():
        found = exchange(web, ISSUE + authorization + rest + SMUGGLED)
        assert [told(answer) for answer in found] == [INVALID], what


def test_chunks_in_http_1_0_are_refused(web: Web) -> None:
    head = ISSUE.replace(b"HTTP/1.1", b"HTTP/1.0")
    assert told(exchange(web, head + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")[0]) == INVALID


def test_an_unread_body_is_not_parsed_as_the_next_request(web: Web) -> None:
    first = LIVEZ[:-2] + b"Content-Length: %d\r\n\r\n%s" % (len(SMUGGLED), SMUGGLED)
    in_chunks = LIVEZ[:-2] + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)
    last = b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    found = exchange(web, first + in_chunks + last)
    assert [told(answer) for answer in found] == [(200, "OK"), (200, "OK"), (404, "NOT_FOUND")]


# Nobody else notices


def test_after_a_refusal_the_server_stops_reading_soon(web: Web) -> None:
    """A byte now and then does not prolong it."""
    with socket.create_connection(("127.0.0.1", web.port), timeout=BOUND_S) as client:
        client.sendall(ISSUE + b"Content-Length: 20000000\r\n\r\n")

        def is_closed() -> bool:
            try:
                client.sendall(b"x")
            except (BrokenPipeError, ConnectionResetError):
                return True
            return False

        wait_until(is_closed, timeout_s=BOUND_S, what="the server has closed")


def test_several_requests_are_served_on_one_connection(web: Web, authorization: bytes) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=BOUND_S)
    headers: dict[str, Any] = dict(line.split(": ") for line in authorization.decode().splitlines())
    seen, ports = [], set()
    for body in (None, b"{}", b"[]", b"{}"):
        connection.request("POST", "/api/v1/coupons/4711/issue", body=body, headers=headers)
        response = connection.getresponse()
        seen.append((response.status, json.loads(response.read())["code"]))
        ports.add(connection.sock.getsockname()[1])
    assert seen == [(404, "COUPON_NOT_FOUND")] * 2 + [INVALID] + [(404, "COUPON_NOT_FOUND")]
    assert len(ports) == 1
    connection.close()
