"""Reads HTTP answers off a kept connection: the status, and that the answer came to its end.

llhttp, the parser of Node.js, finds what is in it. http.client takes a head that is torn off for a whole
one, and turns every head into a mail message, which is half the computing time of a post
(docs/decisions/0023).
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BufferedIOBase

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

MAX_HEAD = 16_384  # bytes, with the interim answers before it: Node.js' default
MAX_BODY = 65_536  # bytes on the wire: sizes of chunks and trailers count


class NoAnswer(Exception):
    """What came is no HTTP answer, or only a part of one."""


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        status: its code, no interim one.
        headers: by name, in small letters; the last one where a name comes twice.
        keeps: another request may be sent on the connection.
    """

    status: int
    headers: dict[str, str]
    keeps: bool


def read_answer(stream: BufferedIOBase) -> Answer:
    """Read one answer; its body is thrown away.

    A body of more than `MAX_BODY` bytes need not be read to its end, and the connection is not to be used
    again then. Nor is it when more than the answer came, other than empty lines: that would be taken for the
    next one.

    Args:
        stream: buffered, of the connection.

    Raises:
        NoAnswer: it is torn off, no HTTP/1, or its head has more than `MAX_HEAD` bytes.
        OSError: the connection broke.
    """
    message = _Message()
    while message.room:
        piece = stream.read1(message.room)  # what is there; it waits only while nothing is
        if not piece:
            message.end()
            break
        message.feed(piece)
    return message.answer()


class _Message:
    """What is known of an answer so far. llhttp calls the methods that begin with «on»."""

    def __init__(self) -> None:
        self._received = 0
        self._status: int | None = None  # known when the head has come to its end
        self._headers: dict[str, str] = {}
        self._is_whole = False
        self._keeps = False
        self._parser = HttpResponseParser(self)
        # A line may end without its CR (RFC 9112, section 2.2), and some servers pad the sizes of chunks. Nobody
        # reads the answer after us, so nobody can be made to read it differently.
        self._parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True)

    @property
    def room(self) -> int:
        """How many bytes may still be read."""
        if self._is_whole:
            return 0
        return (MAX_HEAD if self._status is None else MAX_HEAD + MAX_BODY) - self._received

    def feed(self, piece: bytes) -> None:
        """Take what was read."""
        self._received += len(piece)
        try:
            self._parser.feed_data(piece)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._keeps = False
            if not self._is_whole:
                why = "it changes to another protocol" if isinstance(error, HttpParserUpgrade) else error
                raise NoAnswer(f"not an HTTP answer: {why}") from error

    def end(self) -> None:
        """The connection was closed, which is how a body without a length ends (RFC 9112, section 6.3)."""
        if self._received == 0:
            raise NoAnswer("the connection was closed")
        if self._status is None:
            raise NoAnswer("the head of the answer is torn off")
        if "content-length" in self._headers or "chunked" in self._headers.get("transfer-encoding", "").lower():
            raise NoAnswer("the body of the answer is torn off")

    def answer(self) -> Answer:
        """The answer, once there is no room or the end has come."""
        del self._parser  # it knows this object: the two would be left to the garbage collector
        if self._status is None:
            raise NoAnswer(f"an answer with a head of more than {MAX_HEAD} bytes")
        return Answer(self._status, self._headers, self._keeps)

    def on_message_begin(self) -> None:
        self._keeps = False  # if the answer is whole, this is more than was asked for

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._status is None:  # later come trailers
            self._headers[name.decode("latin-1").lower()] = value.decode("latin-1").strip()

    def on_headers_complete(self) -> None:
        if self._status is not None:
            return
        status = self._parser.get_status_code()
        if 100 <= status < 200:  # interim, such as «103 Early Hints»: the answer itself comes after it
            self._headers.clear()
        else:
            self._status = status

    def on_message_complete(self) -> None:
        if self._status is not None and not self._is_whole:
            self._is_whole = True
            self._keeps = self._parser.should_keep_alive()
