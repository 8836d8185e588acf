"""One client's connection, with a bound on everything that the client may be waited for."""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from typing import Any

from gunicorn import util
from gunicorn.http.errors import LimitRequestHeaders

# All lines of a head together. gunicorn's own limits allow half a megabyte, and its parser copies
# what has come so far for every piece that comes.
MAX_HEAD_BYTES = 32 * 1024

# After a refusal, what is still coming is taken for a moment: closing over it would reset the
# answer away.
LINGER_S = 0.5
MAX_LINGER_BYTES = 256 * 1024

FILE_PIECE_BYTES = 64 * 1024
# What the kernel may keep of answers that the client does not take. By itself Linux goes up to
# 4 MB a connection (net.ipv4.tcp_wmem). Our longest answer, the style sheet, has 84 KB.
SEND_BUFFER_BYTES = 128 * 1024


class TooSlow(Exception):
    """The client has not sent its request in time."""


class ClientConnection:
    """A client's socket that knows what the client is waited for, and until when.

    gunicorn's parser reads from it and its responses write to it. In turn it waits for a request's
    first byte (`idle_s`, then it is quietly closed), its head, its body, and for the client to take
    the answer (`timeout_s` for the whole of each, not for each read or write).
    """

    def __init__(self, client: Any, waiting: dict[ClientConnection, None], *, idle_s: float, timeout_s: float) -> None:
        """Wait for the first request.

        Args:
            client: the socket.
            waiting: where to stand while the client is waited for.
            idle_s: for the first byte of a request.
            timeout_s: for each of the other steps.
        """
        self._client = client
        self._waiting = waiting
        self._idle_s = idle_s
        self._timeout_s = timeout_s
        self._given_way = False
        with contextlib.suppress(OSError):  # on some systems a client that has left already
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self.await_request()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def await_request(self) -> None:
        """Nothing is under way: the client may keep quiet for a while."""
        self._head_bytes: int | None = 0
        self._answering = False
        self._wait(self._idle_s)

    def await_body(self, *, ask: bool) -> None:
        """The head has come.

        Args:
            ask: tell the client to go on (`Expect: 100-continue`).
        """
        self._head_bytes = None
        self._wait(self._timeout_s)
        if ask:
            self._send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def mark_served(self) -> None:
        """The client is not waited for: its request is whole, or it has gone."""
        self._waiting.pop(self, None)

    def give_way(self) -> None:
        """End the connection from another greenlet; to its own it looks as if the client had left."""
        self._given_way = True
        self.mark_served()
        with contextlib.suppress(OSError):
            self._client.shutdown(socket.SHUT_RDWR)

    def recv(self, size: int) -> bytes:
        """What has come; nothing where the client has left, or kept quiet between two requests.

        Args:
            size: in bytes, at most.

        Raises:
            TooSlow: it has begun a request, and the time is up.
            gunicorn.http.errors.LimitRequestHeaders: its head is too long.
        """
        try:
            self._client.settimeout(self._left_s())
            part: bytes = self._client.recv(size)
        except TimeoutError as error:
            if self._head_bytes == 0:
                return b""
            raise TooSlow() from error
        except OSError:
            if self._given_way:
                return b""
            raise
        if part and self._head_bytes is not None:
            self._count_head(self._head_bytes, len(part))
        return part

    def _count_head(self, before: int, size: int) -> None:
        if not before:
            self._wait(self._timeout_s)
        self._head_bytes = before + size
        if self._head_bytes > MAX_HEAD_BYTES:
            raise LimitRequestHeaders("head")

    def sendall(self, data: bytes) -> None:
        """Send a part of an answer.

        Args:
            data: the part.

        Raises:
            BrokenPipeError: the client has not taken the answer in time.
        """
        if not self._answering:
            self._answering = True
            self._wait(self._timeout_s)
        self._send(data)

    def sendfile(self, file: Any, *, offset: int, count: int) -> None:
        """Send a part of a file, as an answer or a part of one.

        Args:
            file: open for reading.
            offset: of its first byte.
            count: of bytes.
        """
        file.seek(offset)
        while count and (piece := file.read(min(count, FILE_PIECE_BYTES))):
            self.sendall(piece)
            count -= len(piece)

    def refuse(self, answer: bytes) -> None:
        """Answer what is not served, and close.

        Args:
            answer: the whole of it.
        """
        self.sendall(answer)
        util.close_graceful(self._client, timeout=LINGER_S, max_drain=MAX_LINGER_BYTES)

    def _send(self, data: bytes) -> None:
        try:
            self._client.settimeout(self._left_s())
            self._client.sendall(data)
        except OSError as error:
            if not self._given_way and not isinstance(error, TimeoutError):
                raise
            # What gunicorn takes for a client that has left.
            raise BrokenPipeError(errno.EPIPE, "the client does not take its answer") from error

    def _wait(self, seconds: float) -> None:
        self._end_s = time.monotonic() + seconds
        self._waiting[self] = None

    def _left_s(self) -> float:
        left_s = self._end_s - time.monotonic()
        if left_s > 0:
            return left_s
        raise TimeoutError()
