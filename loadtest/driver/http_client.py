"""A client that is cheaper than the server it measures: raw HTTP/1.1 on a kept connection."""

from __future__ import annotations

import json
import re
import select
import socket
from contextlib import closing
from dataclasses import dataclass

HOST = "127.0.0.1"
TIMEOUT_S = 30.0
CHUNK_BYTES = 65_536


@dataclass(frozen=True)
class Reply:
    """An HTTP response.

    Attributes:
        status: HTTP status; 0 where no response came.
        body: decoded from chunks where it came in chunks.
        head: status line and headers, in lower case.
    """

    status: int
    body: bytes = b""
    head: bytes = b""

    @property
    def code(self) -> str:
        """The response's `code`; `HTTP_<status>` where it has none, `NO_ANSWER` where no response came."""
        if not self.status:
            return "NO_ANSWER"
        return self._field("code") or f"HTTP_{self.status}"

    @property
    def issuance(self) -> str:
        """The code of the issuance that the response shows; empty where it shows none."""
        return self._field("data", "code") if self.status in (200, 201, 409) else ""

    @property
    def is_replay(self) -> bool:
        """Whether it repeats the first response to the same `Idempotency-Key`."""
        return b"\r\nidempotency-replayed: true" in self.head

    @property
    def closes(self) -> bool:
        """Whether the server closes the connection after it."""
        return b"\r\nconnection: close" in self.head

    @property
    def retry_after_s(self) -> int | None:
        """The `Retry-After` header in seconds, where there is one."""
        found = re.search(rb"\r\nretry-after: ([0-9]+)", self.head)
        return int(found[1]) if found else None

    def _field(self, *path: str) -> str:
        """Return a field of the body; empty where the body is no JSON, or has no such field."""
        try:
            value = json.loads(self.body)
            for name in path:
                value = value[name]
        except (ValueError, KeyError, TypeError):
            return ""
        return str(value)


NO_REPLY = Reply(0)


def request_bytes(
    method: str, path: str, token: str = "", *, key: str = "", keep: bool = True, host: str = HOST, cookie: str = ""
) -> bytes:
    """Return a request as it goes over the network.

    Args:
        method: `GET` or `POST`.
        path: with its leading slash.
        token: bearer token; none when empty.
        key: `Idempotency-Key`; none when empty.
        keep: keep the connection open afterwards.
        host: value of the `Host` header.
        cookie: `name=value`; none when empty.
    """
    headers = [f"Host: {host}"]
    headers += [f"Cookie: {cookie}"] if cookie else []
    headers += [f"Authorization: Bearer {token}"] if token else []
    headers += [f"Idempotency-Key: {key}"] if key else []
    headers += ["Content-Length: 0"] if method == "POST" else []
    headers += [] if keep else ["Connection: close"]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *headers, "", ""]).encode()


def take(received: bytearray, more: bytes) -> Reply | None:
    """Add what was just received and return the response once it is complete.

    Args:
        received: what has come so far; grows.
        more: what came now; empty where the server has closed the connection.

    Raises:
        OSError: closed before the response was complete.
        ValueError: not HTTP/1.1.
    """
    received += more
    reply = _parse(received, closed=not more)
    if reply is None and not more:
        raise ConnectionResetError("closed before the response was complete")
    return reply


def _parse(data: bytearray, *, closed: bool) -> Reply | None:
    """Return the response if it is complete: by its length, its last chunk, or the connection's end."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = bytes(data[:end]).lower()
    status = int(head[9:12])
    body = bytes(data[end + 4 :])
    if length := re.search(rb"\r\ncontent-length: *([0-9]+)", head):
        return Reply(status, body[: int(length[1])], head) if len(body) >= int(length[1]) else None
    if b"\r\ntransfer-encoding: chunked" in head:
        return Reply(status, _joined(body), head) if body.endswith(b"0\r\n\r\n") else None
    return Reply(status, body, head) if closed or status in (204, 304) else None


def _joined(chunked: bytes) -> bytes:
    """Return a chunked body without its chunk sizes."""
    body, at = b"", 0
    while size := int(chunked[at : (line := chunked.index(b"\r\n", at))].split(b";")[0], 16):
        body += chunked[line + 2 : line + 2 + size]
        at = line + 2 + size + 2
    return body


class HttpConnection:
    """One kept connection that waits for each response; reconnects when it breaks."""

    def __init__(self, port: int, timeout_s: float = TIMEOUT_S) -> None:
        """Connect at the first exchange.

        Args:
            port: on loopback.
            timeout_s: how long to wait for the server at each step, in seconds.
        """
        self._port = port
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None

    def exchange(self, request: bytes) -> Reply:
        """Send one request and read its response."""
        try:
            if self._socket is not None and _was_closed(self._socket):
                self.close()
            if self._socket is None:
                self._socket = socket.create_connection((HOST, self._port), timeout=self._timeout_s)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.sendall(request)
            received = bytearray()
            while (reply := take(received, self._socket.recv(CHUNK_BYTES))) is None:
                pass
        except OSError:
            self.close()
            return NO_REPLY
        if reply.closes:
            self.close()
        return reply

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _was_closed(connection: socket.socket) -> bool:
    """Whether the server has closed an idle connection, as any server may; no request was lost."""
    poll = select.poll()  # select() cannot handle descriptors beyond 1023
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))


def get(port: int, path: str, *, timeout_s: float = TIMEOUT_S) -> Reply:
    """Send one GET on a connection of its own; arguments as of `HttpConnection`."""
    with closing(HttpConnection(port, timeout_s)) as connection:
        return connection.exchange(request_bytes("GET", path, keep=False))
