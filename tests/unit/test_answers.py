"""What counts as a whole HTTP answer, and whether the connection may be used again."""

from __future__ import annotations

import http.client
import io
import itertools
import socket
from collections.abc import Iterator

import pytest

from couponapp.notifying.channels.webhook import answers
from couponapp.notifying.channels.webhook.answers import MAX_BODY, MAX_HEAD, Answer, NoAnswer, read_answer

NEXT = b"HTTP/1.1 204 No Content\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
OFFER = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"

WHOLE = [
    (NEXT, 204),
    (b"HTTP/1.1 204\n\n", 204),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200),
    (b"HTTP/1.1 503 \xec\x9e\x90\r\ncontent-length: 0\r\n\r\n", 503),
    (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304),
    (CHUNKED + b"2\r\nok\r\n0\r\n\r\n", 200),
    (CHUNKED + b"2;why=not\r\nok\r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n", 200),
    (CHUNKED + b"2  \r\nok\r\n0\r\n\r\n", 200),
    (HINTS + b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n", 410),
    (b"HTTP/1.1 100 Continue\r\n\r\n" + HINTS + HINTS + CHUNKED + b"0\r\n\r\n", 200),
    (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok", 200),
    (b"HTTP/1.1 200 OK\r\n" + OFFER + b"Content-Length: 2\r\n\r\nok", 200),
    (b"HTTP/1.1 426 Upgrade Required\r\n" + OFFER + b"Content-Length: 0\r\n\r\n", 426),
]


class Pieces(io.RawIOBase):
    """A connection on which each piece comes by itself."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.pieces = pieces
        self.taken = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # as BufferedReader calls it
        piece = next(self.pieces, b"")[: len(buffer)]
        buffer[: len(piece)] = piece
        self.taken += len(piece)
        return len(piece)


def byte_by_byte(sent: bytes) -> io.BufferedReader:
    return io.BufferedReader(Pieces(sent[at : at + 1] for at in range(len(sent))))


@pytest.mark.parametrize(("sent", "status"), WHOLE)
def test_a_whole_answer_is_read_to_its_end_and_another_may_follow(sent: bytes, status: int) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, ours.makefile("rb") as stream:
        ours.settimeout(30)
        theirs.sendall(sent)
        answer = read_answer(stream)  # it does not wait for more: the connection stays open
        assert (answer.status, answer.keeps) == (status, True)
        theirs.sendall(NEXT)
        assert read_answer(stream) == Answer(204, {}, keeps=True)


@pytest.mark.parametrize(("sent", "status"), WHOLE)
def test_an_answer_is_the_same_however_it_is_cut_up(sent: bytes, status: int) -> None:
    stream = byte_by_byte(sent + NEXT)
    answer = read_answer(stream)
    assert answer.status == status
    assert answer == read_answer(io.BytesIO(sent))
    assert read_answer(stream).status == 204  # nothing was read beyond the first
    assert not stream.read()


@pytest.mark.parametrize(("sent", "_status"), WHOLE)
def test_an_answer_is_none_before_its_last_byte(sent: bytes, _status: int) -> None:
    for end in range(len(sent)):
        with pytest.raises(NoAnswer):
            read_answer(io.BytesIO(sent[:end]))


@pytest.mark.parametrize("more", [NEXT, b"H", b"\0", b"more", HINTS, b"HTTP/1.1 101 Other\r\n" + OFFER + b"\r\n"])
@pytest.mark.parametrize(("sent", "status"), WHOLE)
def test_after_more_than_the_answer_the_connection_is_not_used_again(sent: bytes, status: int, more: bytes) -> None:
    alone, answer = read_answer(io.BytesIO(sent)), read_answer(io.BytesIO(sent + more))
    assert answer == Answer(status, alone.headers, keeps=False)


@pytest.mark.parametrize(("sent", "_status"), WHOLE)
def test_empty_lines_between_answers_harm_neither(sent: bytes, _status: int) -> None:
    assert read_answer(io.BytesIO(sent + b"\r\n")) == read_answer(io.BytesIO(b"\r\n" + sent))
    assert read_answer(io.BytesIO(sent + b"\r\n")).keeps


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok, and more",
        b"HTTP/1.1 200 OK\r\nConnection: keep-alive, close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\n\r\nuntil it is closed",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nuntil it is closed",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nuntil it is closed",
        HINTS + b"HTTP/1.1 200 OK\r\n\r\nuntil it is closed",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (MAX_HEAD + MAX_BODY),
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (10 * MAX_BODY) + b"x" * (MAX_HEAD + MAX_BODY),
        CHUNKED + b"%X\r\n" % (10 * MAX_BODY) + b"x" * (MAX_HEAD + MAX_BODY),
    ],
)
def test_after_some_answers_the_connection_is_not_used_again(sent: bytes) -> None:
    for stream in (io.BytesIO(sent), byte_by_byte(sent)):
        answer = read_answer(stream)
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
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\noks",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        CHUNKED + b"2\r\nok\r\n",
        CHUNKED + b"2\r\nokay\r\n0\r\n\r\n",
        CHUNKED + b"0\r\n",
        CHUNKED + b"0\r\nTrailer: x\r\n",
        CHUNKED + b"two\r\nok\r\n0\r\n\r\n",
        HINTS,
        b"HTTP/1.1 101 Switching Protocols\r\n" + OFFER + b"\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n" + OFFER + b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"220 mail.example ESMTP\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",  # a TLS alert
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * (MAX_HEAD // 6) + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * MAX_HEAD + b"\r\n\r\n",
        HINTS * (MAX_HEAD // len(HINTS)) + NEXT,
    ],
)
def test_what_is_torn_off_or_no_answer_is_none(sent: bytes) -> None:
    for stream in (io.BytesIO(sent), byte_by_byte(sent)):
        with pytest.raises(NoAnswer):
            read_answer(stream)


def test_a_head_may_be_so_long_and_no_longer() -> None:
    start, end = b"HTTP/1.1 204 No Content\r\nX: ", b"\r\n\r\n"
    longest = start + b"y" * (MAX_HEAD - len(start) - len(end)) + end
    assert read_answer(io.BytesIO(longest)).status == 204
    with pytest.raises(NoAnswer, match=f"more than {MAX_HEAD} bytes"):
        read_answer(io.BytesIO(longest.replace(b"X: ", b"XX: ")))


@pytest.mark.parametrize(
    ("start", "again"),
    [
        (b"", b"\r\n"),
        (b"HTTP/1.1 200 ", b"O"),
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        (HINTS + b"HTTP/1.1 200 OK\r\nX: ", b"y"),
        (b"", HINTS),
    ],
)
def test_of_a_head_without_an_end_so_much_is_read_and_no_more(start: bytes, again: bytes) -> None:
    connection = Pieces(itertools.chain([start or again], itertools.repeat(again)))
    with pytest.raises(NoAnswer, match=f"more than {MAX_HEAD} bytes"):
        read_answer(io.BufferedReader(connection))
    assert connection.taken == MAX_HEAD


@pytest.mark.parametrize(
    ("head", "again"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n", b"x"),
        (CHUNKED, b"1\r\nx\r\n"),
        (CHUNKED + b"5;", b"x"),
        (CHUNKED + b"0\r\n", b"X: y\r\n"),
    ],
)
def test_of_a_body_without_an_end_so_much_is_read_and_no_more(head: bytes, again: bytes) -> None:
    connection = Pieces(itertools.chain([head], itertools.repeat(again * 100)))
    assert read_answer(io.BufferedReader(connection)).keeps is False
    assert connection.taken == MAX_HEAD + MAX_BODY


def test_the_standard_library_takes_a_torn_head_for_a_whole_one() -> None:
    # Why it does not read the answers: when this fails, httptools may have become superfluous.
    torn = b"HTTP/1.1 200 OK\r\nContent-Le"

    class Torn:
        def makefile(self, _: str) -> io.BytesIO:
            return io.BytesIO(torn)

    answer = http.client.HTTPResponse(Torn())  # type: ignore[arg-type]  # all that it asks for
    answer.begin()
    assert answer.status == 200
    with pytest.raises(NoAnswer, match="torn off"):
        read_answer(io.BytesIO(torn))


@pytest.mark.parametrize(
    ("guard", "sent", "found"),
    [
        ("end", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", Answer(200, {"content-length": "2"}, keeps=False)),
        ("on_message_begin", NEXT + NEXT, Answer(204, {}, keeps=True)),
    ],
)
def test_without_its_guards_a_torn_answer_is_one_and_one_too_many_stays(
    monkeypatch: pytest.MonkeyPatch, guard: str, sent: bytes, found: Answer
) -> None:
    # The negative control of the tests above.
    monkeypatch.setattr(answers._Message, guard, lambda _: None)
    assert read_answer(io.BytesIO(sent)) == found


def test_names_of_headers_are_found_however_they_are_written() -> None:
    sent = b"HTTP/1.1 429 Slow Down\r\nRETRY-After:  7 \r\nContent-Length: 0\r\n\r\n"
    assert read_answer(io.BytesIO(sent)).headers["retry-after"] == "7"


def test_headers_are_those_of_the_answer_and_not_of_what_comes_before_or_after_it() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nRetry-After: 1\r\n\r\n"
    late = b"0\r\nRetry-After: 2\r\n\r\n" + b"HTTP/1.1 429 Slow Down\r\nRetry-After: 3\r\n\r\n"
    assert read_answer(io.BytesIO(early + CHUNKED + late)).headers == {"transfer-encoding": "chunked"}
