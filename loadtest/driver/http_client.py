"""A client that is cheaper than the server it measures: raw HTTP/1.1 on a kept connection."""

from __future__ import annotations

import json
import re
import select
import socket
from dataclasses import dataclass

HOST = "127.0.0.1"
TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Reply:
    """What came back; status 0 where nothing did. The head is in small letters."""

    status: int
    body: bytes
    head: bytes = b""

    @property
    def code(self) -> str:
        """The answer's `code`, or what stands in for it."""
        if not self.status:
            return "NO_ANSWER"
        try:
            return str(json.loads(self.body)["code"])
        except (ValueError, KeyError, TypeError):
            return f"HTTP_{self.status}"

    @property
    def issuance(self) -> str:
        """The code of the coupon that the answer gives or shows; empty where there is none."""
        if self.status not in (200, 201, 409):
            return ""
        try:
            return str(json.loads(self.body)["data"]["code"])
        except (ValueError, KeyError, TypeError):
            return ""

    @property
    def is_replay(self) -> bool:
        """It gives once more what the same `Idempotency-Key` got before."""
        return b"\r\nidempotency-replayed: true" in self.head

    @property
    def retry_after_s(self) -> int | None:
        """The answer's `Retry-After` in seconds, where it has one."""
        found = re.search(rb"\r\nretry-after: ([0-9]+)", self.head)
        return int(found[1]) if found else None


def request_bytes(
    method: str, path: str, token: str = "", *, key: str = "", keep: bool = True, host: str = HOST, cookie: str = ""
) -> bytes:
    """A request as it goes over the wire.

    Args:
        method: `GET` or `POST`.
        path: with its leading slash.
        token: of the user who asks; none when left out.
        key: the `Idempotency-Key`; none when left out.
        keep: whether the connection may be used again.
        host: the name of the server that is asked.
        cookie: what a browser would send along, `name=value`; none when left out.
    """
    headers = [f"Host: {host}"]
    headers += [f"Cookie: {cookie}"] if cookie else []
    headers += [f"Authorization: Bearer {token}"] if token else []
    headers += [f"Idempotency-Key: {key}"] if key else []
    headers += ["Content-Length: 0"] if method == "POST" else []
    headers += [] if keep else ["Connection: close"]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *headers, "", ""]).encode()


class Connection:
    """One kept connection, made again when it breaks."""

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
        """Send one request and read its answer."""
        try:
            if self._socket is not None and _was_closed(self._socket):
                self.close()
            if self._socket is None:
                self._socket = socket.create_connection((HOST, self._port), timeout=self._timeout_s)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.sendall(request)
            return self._read(self._socket)
        except OSError:
            self.close()
            return Reply(0, b"")

    def close(self) -> None:
        """Let go of the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _read(self, connection: socket.socket) -> Reply:
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += _receive(connection)
        head = data[:end].lower()
        at = head.index(b"content-length:") + len(b"content-length:")
        length = int(head[at : head.find(b"\r", at) if head.find(b"\r", at) > 0 else None])
        body = data[end + 4 :]
        while len(body) < length:
            body += _receive(connection)
        if b"connection: close" in head:
            self.close()
        return Reply(int(head[9:12]), body, head)


def _was_closed(connection: socket.socket) -> bool:
    """The server has let go of it while it lay idle, as any server may; nothing was lost."""
    asked = select.poll()  # select() knows no descriptor beyond 1023
    asked.register(connection, select.POLLIN)
    return bool(asked.poll(0))


def _receive(connection: socket.socket) -> bytes:
    if data := connection.recv(65536):
        return data
    raise ConnectionResetError("closed before the answer was whole")
