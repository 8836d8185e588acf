"""What gunicorn refuses before the application sees it has the one shape too."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from tests.servers import Web, running_web


@pytest.fixture
def web(tmp_path: Path, environ: dict[str, str]) -> Iterator[Web]:
    with running_web(tmp_path, environ, processes=1) as web:
        yield web


def send_raw(web: Web, request: bytes) -> tuple[int, dict[str, object]]:
    with socket.create_connection(("127.0.0.1", web.port), timeout=10) as connection:
        connection.sendall(request)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/json" in head
    return int(head.split()[1]), dict(json.loads(body))


def test_refusals_of_the_server_itself_have_the_one_shape(web: Web) -> None:
    cases = {
        b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n": (414, "URI_TOO_LONG"),
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 20_000 + b"\r\n\r\n": (431, "INVALID_REQUEST"),
        b"<script>alert(1)</script>\r\n\r\n": (400, "INVALID_REQUEST"),
        b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n": (400, "INVALID_REQUEST"),
        b"GET / HTTP/1.1\r\nHost: localhost\r\nBad Header: x\r\n\r\n": (400, "INVALID_REQUEST"),
    }
    for request, (status, code) in cases.items():
        seen, body = send_raw(web, request)
        assert (seen, body["code"], body["success"], body["data"]) == (status, code, False, None)
        assert "script" not in str(body)


def test_options_is_a_method_like_any_other(client: FlaskClient) -> None:
    answer = client.options("/api/v1/coupons")
    assert answer.status_code == 405
    assert answer.get_json()["code"] == "METHOD_NOT_ALLOWED"
