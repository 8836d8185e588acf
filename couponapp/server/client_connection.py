"""One client's connection, with a bound on each step of the client."""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from typing import Any

from gunicorn import util
from gunicorn.http.errors import LimitRequestHeaders

# The whole head of a request. gunicorn's own limits allow half a megabyte, and its parser copies all
# received bytes for every piece that arrives.
MAX_HEAD_BYTES = 32 * 1024

# After a refusal the connection still reads for a moment: closing it with unread data would send a reset,
# and the client would not see the response.
LINGER_S = 0.5
MAX_LINGER_BYTES = 256 * 1024

FILE_PIECE_BYTES = 64 * 1024
# How much of unread responses the kernel buffers per connection. Linux's default goes up to 4 MB
# (net.ipv4.tcp_wmem). Our longest response, the style sheet, has 84 KB.
SEND_BUFFER_BYTES = 128 * 1024


class TooSlow(Exception):
    """The client did not send its request in time."""


class ClientConnection:
    """A client's socket with a deadline for the client's current step.

    gunicorn's parser reads from it and its responses write to it. The steps are: the first byte of a
    request (`idle_s`, then the connection is closed silently), the rest of the head, the body, and reading
    the response (`timeout_s` for the whole step, not for each read or write).
    """

    def __init__(self, client: Any, waiting: dict[ClientConnection, None], *, idle_s: float, timeout_s: float) -> None:
        """Start waiting for the first request.

        Args:
            client: the socket.
            waiting: the connections whose client has to act next; this connection adds and removes itself.
            idle_s: the bound of the first step, in seconds.
            timeout_s: the bound of each other step, in seconds.
        """
        self._client = client
        self._waiting = waiting
        self._idle_s = idle_s
        self._timeout_s = timeout_s
        self._evicted = False
        with contextlib.suppress(OSError):  # on some systems, if the client has already left
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self.await_request()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def await_request(self) -> None:
        """Start the step «first byte of a request»."""
        self._head_bytes: int | None = 0
        self._responding = False
        self._start_step(self._idle_s)

    def await_body(self, *, ask: bool) -> None:
        """Start the step «body»; the head is complete.

        Args:
            ask: whether the client waits for `100 Continue`.
        """
        self._head_bytes = None
        self._start_step(self._timeout_s)
        if ask:
            self._send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def mark_served(self) -> None:
        """Note that the client does not have to act: its request is complete, or it has left."""
        self._waiting.pop(self, None)

    def evict(self) -> None:
        """End the connection from another greenlet; its own greenlet sees a client that has left."""
        self._evicted = True
        self.mark_served()
        with contextlib.suppress(OSError):
            self._client.shutdown(socket.SHUT_RDWR)

    def recv(self, size: int) -> bytes:
        """Return received bytes; none if the client has left or stayed idle between two requests.

        Args:
            size: the most bytes to return.

        Raises:
            TooSlow: the client has begun a request and did not complete it in time.
            gunicorn.http.errors.LimitRequestHeaders: the head is too long.
        """
        try:
            self._client.settimeout(self._remaining_s())
            part: bytes = self._client.recv(size)
        except TimeoutError as error:
            if self._head_bytes == 0:
                return b""
            raise TooSlow() from error
        except OSError:
            if self._evicted:
                return b""
            raise
        if part and self._head_bytes is not None:
            if not self._head_bytes:
                self._start_step(self._timeout_s)
            self._head_bytes += len(part)
            if self._head_bytes > MAX_HEAD_BYTES:
                raise LimitRequestHeaders("head")
        return part

    def sendall(self, data: bytes) -> None:
        """Send a part of a response.

        Args:
            data: the bytes to send.

        Raises:
            BrokenPipeError: the client did not read the response in time.
        """
        if not self._responding:
            self._responding = True
            self._start_step(self._timeout_s)
        self._send(data)

    def sendfile(self, file: Any, *, offset: int, count: int) -> None:
        """Send a part of a file.

        Args:
            file: open for reading.
            offset: the position of the first byte.
            count: the number of bytes.
        """
        file.seek(offset)
        while count and (piece := file.read(min(count, FILE_PIECE_BYTES))):
            self.sendall(piece)
            count -= len(piece)

    def refuse(self, response: bytes) -> None:
        """Send a response and close the connection.

        Args:
            response: the whole response.
        """
        self.sendall(response)
        util.close_graceful(self._client, timeout=LINGER_S, max_drain=MAX_LINGER_BYTES)

    def _send(self, data: bytes) -> None:
        try:
            self._client.settimeout(self._remaining_s())
            self._client.sendall(data)
        except OSError as error:
            if not self._evicted and not isinstance(error, TimeoutError):
                raise
            # With this error gunicorn treats the client as gone.
            raise BrokenPipeError(errno.EPIPE, "the client does not read its response") from error

    def _start_step(self, timeout_s: float) -> None:
        self._step_ends_s = time.monotonic() + timeout_s
        self._waiting[self] = None

    def _remaining_s(self) -> float:
        remaining_s = self._step_ends_s - time.monotonic()
        if remaining_s > 0:
            return remaining_s
        raise TimeoutError()
