"""Requests as they go over the network, and responses in whatever pieces they come."""

from __future__ import annotations

from collections.abc import Sequence
from http.client import parse_headers
from io import BytesIO

import pytest

from loadtest.driver.http_client import NO_REPLY, Reply, request_bytes, take

BODY = b'{"code": "ISSUED", "data": {"code": "ABCD"}}'
OK = b"HTTP/1.1 200 OK\r\n"
WHOLE: dict[str, tuple[bytes, bytes]] = {
    "a length": (OK + b"Content-Length: 2\r\n\r\nok", b"ok"),
    "no body": (OK + b"Content-Length: 0\r\n\r\n", b""),
    "chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\no\r\n1;why=not\r\nk\r\n0\r\n\r\n", b"ok"),
    "an empty line in a body": (OK + b"Content-Length: 4\r\n\r\n\r\n\r\n", b"\r\n\r\n"),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "304": (b"HTTP/1.1 304 Not Modified\r\n\r\n", b""),
}


def taken(pieces: Sequence[bytes]) -> list[Reply | None]:
    received = bytearray()
    return [take(received, piece) for piece in pieces]


@pytest.mark.parametrize("form", WHOLE)
def test_a_response_is_complete_with_its_last_byte_and_not_before(form: str) -> None:
    raw, body = WHOLE[form]
    *before, last = taken([raw[at : at + 1] for at in range(len(raw))])
    assert before == [None] * (len(raw) - 1)
    assert last is not None
    assert (last.status, last.body) == (int(raw[9:12]), body)


def test_a_response_without_a_length_lasts_until_the_connection_ends() -> None:
    first, last = taken([OK + b"\r\nok", b""])
    assert first is None
    assert last is not None
    assert (last.status, last.body) == (200, b"ok")


@pytest.mark.parametrize("raw", [b"", OK, OK + b"Content-Length: 3\r\n\r\nok", WHOLE["chunks"][0][:-1]])
def test_a_connection_that_ends_in_the_middle_gives_no_response(raw: bytes) -> None:
    with pytest.raises(ConnectionResetError):
        taken([raw, b""])


def test_what_is_no_http_is_reported() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        taken([b"220 mail.example ESMTP\r\n\r\n"])


def test_names_of_headers_are_read_in_any_case() -> None:
    (reply,) = taken([b"HTTP/1.1 429 X\r\nRETRY-AFTER: 7\r\nConnection: Close\r\nCONTENT-LENGTH: 0\r\n\r\n"])
    assert reply is not None
    assert (reply.retry_after_s, reply.closes, reply.is_replay) == (7, True, False)


@pytest.mark.parametrize(
    ("reply", "code", "issuance"),
    [
        (Reply(201, BODY), "ISSUED", "ABCD"),
        (Reply(409, b'{"code": "SOLD_OUT", "data": null}'), "SOLD_OUT", ""),
        (Reply(503, BODY.replace(b"ISSUED", b"X")), "X", ""),  # what a refusal holds is no issuance
        (Reply(502, b"<html>"), "HTTP_502", ""),
        (Reply(200, b"[]"), "HTTP_200", ""),
        (NO_REPLY, "NO_ANSWER", ""),
    ],
)
def test_code_and_issuance_are_those_of_the_body_where_it_has_them(reply: Reply, code: str, issuance: str) -> None:
    assert (reply.code, reply.issuance) == (code, issuance)


def test_a_request_has_the_headers_that_are_asked_for_and_no_others() -> None:
    def headers(*arguments: str, **more: object) -> dict[str, str]:
        line, _, rest = request_bytes(*arguments, **more).partition(b"\r\n")  # type: ignore[arg-type]  # as given
        assert line == f"{arguments[0]} /x HTTP/1.1".encode()
        return dict(parse_headers(BytesIO(rest)).items())

    assert headers("GET", "/x") == {"Host": "127.0.0.1"}
    assert headers("POST", "/x", "T", key="K", host="shop.example", cookie="a=b", keep=False) == {
        "Host": "shop.example",
        "Authorization": "Bearer T",
        "Idempotency-Key": "K",
        "Cookie": "a=b",
        "Content-Length": "0",
        "Connection": "close",
    }
