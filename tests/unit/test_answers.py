"""What counts as a whole HTTP answer, and whether the connection may be used again."""

from __future__ import annotations

import http.client
import io

import pytest

from couponapp.notifying.channels.answers import MAX_BODY, MAX_LINES, NoAnswer, read_answer

NEXT = b"HTTP/1.1 204 No Content\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (NEXT, 204),
        (b"HTTP/1.1 204\n\n", 204),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200),
        (b"HTTP/1.1 503 \xec\x9e\x90\r\ncontent-length: 0\r\n\r\n", 503),
        (CHUNKED + b"2\r\nok\r\n0\r\n\r\n", 200),
        (CHUNKED + b"2;why=not\r\nok\r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n", 200),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n", 410),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok", 200),
    ],
)
def test_a_whole_answer_is_read_to_its_end_and_another_may_follow(sent: bytes, status: int) -> None:
    stream = io.BytesIO(sent + NEXT)
    answer = read_answer(stream)
    assert (answer.status, answer.keeps) == (status, True)
    assert read_answer(stream).status == 204
    assert not stream.read()


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\n\r\nuntil it is closed",
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY + 1) + b"x" * MAX_BODY,
        CHUNKED + b"%X\r\n" % (10 * MAX_BODY) + b"x" * MAX_BODY,
    ],
)
def test_after_some_answers_the_connection_is_not_used_again(sent: bytes) -> None:
    answer = read_answer(io.BytesIO(sent))
    assert (answer.status, answer.keeps) == (200, False)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"HTTP/1.1 200 O",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no",
        b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
        CHUNKED + b"2\r\nok\r\n",
        CHUNKED + b"2\r\nokay\r\n0\r\n\r\n",
        CHUNKED + b"0\r\n",
        CHUNKED + b"two\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"220 mail.example ESMTP\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * MAX_LINES + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 10_000 + b"\r\n\r\n",
    ],
)
def test_what_is_torn_off_or_no_answer_is_none(sent: bytes) -> None:
    with pytest.raises(NoAnswer):
        read_answer(io.BytesIO(sent))


def test_the_standard_library_takes_a_torn_head_for_a_whole_one() -> None:
    # Why there is a reader of our own: when this fails, it may have become superfluous.
    class Torn:
        def makefile(self, _: str) -> io.BytesIO:
            return io.BytesIO(b"HTTP/1.1 200 OK\r\nContent-Le")

    answer = http.client.HTTPResponse(Torn())  # type: ignore[arg-type]  # all that it asks for
    answer.begin()
    assert answer.status == 200


def test_names_of_headers_are_found_however_they_are_written() -> None:
    sent = b"HTTP/1.1 429 Slow Down\r\nRETRY-After:  7 \r\nContent-Length: 0\r\n\r\n"
    assert read_answer(io.BytesIO(sent)).headers["retry-after"] == "7"
