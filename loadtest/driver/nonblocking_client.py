"""One connection that never blocks: what the generator has thousands of.

`loadtest.driver.http_client.Connection` waits for its answer and so needs a thread of its own. This one is
told when its socket may be written or read, and holds what is half sent or half received.
"""

from __future__ import annotations

import errno
import os
import socket

from loadtest.driver.http_client import Reply

_CHUNK = 65_536
_IN_PROGRESS = (0, errno.EINPROGRESS, errno.EWOULDBLOCK)


def resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """The address behind a name, asked for once and not at every connection.

    Raises:
        OSError: there is no such name.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return family, (str(address[0]), int(address[1]))


class NonblockingConnection:
    """One kept connection; every method raises OSError when it is broken."""

    def __init__(self, family: socket.AddressFamily, address: tuple[str, int]) -> None:
        """Begin to connect; the socket can be written when that is done.

        Args:
            family: of the address.
            address: host and port, resolved.

        Raises:
            OSError: refused at once, or there is no descriptor left.
        """
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.keeps = True
        self._unsent = b""
        self._received = bytearray()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if (error := self.socket.connect_ex(address)) not in _IN_PROGRESS:
            self.socket.close()
            raise OSError(error, os.strerror(error))

    def begin(self, request: bytes) -> None:
        """Take a request to send; `write` sends it."""
        self._unsent = request
        self._received.clear()

    def write(self) -> bool:
        """Send what can be sent now; whether all of it has left."""
        try:
            self._unsent = self._unsent[self.socket.send(self._unsent) :]
        except BlockingIOError:
            return False
        return not self._unsent

    def read(self) -> Reply | None:
        """Take what has come; the answer, when it is whole.

        Raises:
            OSError: closed or broken before the answer was whole.
            ValueError: what came is no HTTP/1.1.
        """
        try:
            data = self.socket.recv(_CHUNK)
        except BlockingIOError:
            return None
        self._received += data
        reply = _parse(self._received, closed=not data)
        if reply is None and not data:
            raise ConnectionResetError("closed before the answer was whole")
        if reply is not None:
            self.keeps = bool(data) and b"\r\nconnection: close" not in reply.head
        return reply

    def close(self) -> None:
        """Let go of the connection."""
        self.socket.close()


def _parse(data: bytearray, *, closed: bool) -> Reply | None:
    """The answer, if it is whole: by its length, its last chunk, or the connection's end."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = bytes(data[:end]).lower()
    status = int(head[9:12])
    body = bytes(data[end + 4 :])
    if (length := _length(head)) is not None:
        return Reply(status, body[:length], head) if len(body) >= length else None
    if b"\r\ntransfer-encoding: chunked" in head:
        return Reply(status, _joined(body), head) if body.endswith(b"0\r\n\r\n") else None
    return Reply(status, body, head) if closed or status in (204, 304) else None


def _length(head: bytes) -> int | None:
    at = head.find(b"\r\ncontent-length:")
    if at < 0:
        return None
    end = head.find(b"\r\n", at + 2)
    return int(head[at + 17 : end if end >= 0 else None])


def _joined(chunked: bytes) -> bytes:
    """A chunked body without its sizes."""
    body, at = b"", 0
    while size := int(chunked[at : (line := chunked.index(b"\r\n", at))].split(b";")[0], 16):
        body += chunked[line + 2 : line + 2 + size]
        at = line + 2 + size + 2
    return body
