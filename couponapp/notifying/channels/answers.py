"""Reads HTTP answers off a kept connection: the status, and that the answer came to its end.

http.client takes a head that is torn off for a whole one, and turns every head into a mail message,
which is half the computing time of a post (docs/decisions/0023).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import BinaryIO

MAX_LINE = 8_192
MAX_LINES = 100
MAX_BODY = 65_536

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})( .*)?\r?\n")
_WHOLE_NUMBER = re.compile(r"[0-9]{1,15}")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(;.*)?\r?\n")
_WITHOUT_BODY = (204, 304)


class NoAnswer(Exception):
    """What came is no HTTP answer, or only a part of one."""


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        status: its code, 200 or higher.
        headers: by name, in small letters; the last one where a name comes twice.
        keeps: another request may be sent on the connection.
    """

    status: int
    headers: dict[str, str]
    keeps: bool


def read_answer(stream: BinaryIO) -> Answer:
    """Read one answer; its body is thrown away.

    The end of a message is found as in RFC 9112, section 6.3. A body of more than `MAX_BODY` bytes
    is not read to its end, and the connection is not to be used again then.

    Args:
        stream: buffered, of the connection.

    Raises:
        NoAnswer: it is torn off, or no HTTP/1.
        OSError: the connection broke.
    """
    while True:
        version, status = _status(stream)
        headers = _headers(stream)
        if status >= 200:  # others, such as «103 Early Hints», come before the answer itself
            break
    wishes = headers.get("connection", "").lower()
    keeps = "close" not in wishes and (version == 1 or "keep-alive" in wishes)
    return Answer(status, headers, _skip_body(stream, status, headers) and keeps)


def _status(stream: BinaryIO) -> tuple[int, int]:
    line = stream.readline(MAX_LINE)
    found = _STATUS_LINE.fullmatch(line)
    if found is None:
        raise NoAnswer("the connection was closed" if not line else "not an HTTP answer")
    return int(found[1]), int(found[2])


def _headers(stream: BinaryIO) -> dict[str, str]:
    headers: dict[str, str] = {}
    for _ in range(MAX_LINES):
        line = stream.readline(MAX_LINE)
        if line in (b"\r\n", b"\n"):
            return headers
        if not line.endswith(b"\n"):
            raise NoAnswer("the head of the answer is torn off")
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    raise NoAnswer(f"an answer with more than {MAX_LINES} headers")


def _skip_body(stream: BinaryIO, status: int, headers: dict[str, str]) -> bool:
    """Tells whether the body has come to its end, so that another answer may follow."""
    if status in _WITHOUT_BODY:
        return True
    if "transfer-encoding" in headers:
        return _skip_chunks(stream)
    length = headers.get("content-length")
    if length is None:  # it lasts until the connection is closed
        stream.read(MAX_BODY)
        return False
    if not _WHOLE_NUMBER.fullmatch(length):
        raise NoAnswer("a Content-Length that is no number")
    _skip(stream, min(int(length), MAX_BODY))
    return int(length) <= MAX_BODY


def _skip_chunks(stream: BinaryIO) -> bool:
    left = MAX_BODY
    while left > 0:
        found = _CHUNK_LINE.fullmatch(stream.readline(MAX_LINE))
        if found is None:
            raise NoAnswer("the body of the answer is torn off")
        size = int(found[1], 16)
        if size == 0:
            _headers(stream)  # trailers, and the empty line
            return True
        _skip(stream, min(size, left))
        if size <= left and stream.readline(MAX_LINE) not in (b"\r\n", b"\n"):
            raise NoAnswer("the body of the answer is torn off")
        left -= size
    return False


def _skip(stream: BinaryIO, size: int) -> None:
    if len(stream.read(size)) < size:
        raise NoAnswer("the body of the answer is torn off")
