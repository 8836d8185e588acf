"""A connection that never blocks: the open-loop generator has thousands of them in one thread.

`HttpConnection` waits for its response and needs a thread of its own. This one is called when its
socket can be written or read, and keeps what is half sent or half received.
"""

from __future__ import annotations

import errno
import os
import socket

from loadtest.driver.http_client import CHUNK_BYTES, Reply, take

_IN_PROGRESS = (0, errno.EINPROGRESS, errno.EWOULDBLOCK)


def resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """Look a host name up once, instead of at every connection.

    Raises:
        OSError: there is no such name.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return family, (str(address[0]), int(address[1]))


class NonblockingConnection:
    """One kept connection; every method raises OSError when it is broken."""

    def __init__(self, family: socket.AddressFamily, address: tuple[str, int]) -> None:
        """Start to connect; the socket becomes writable when that is done.

        Args:
            family: of the address.
            address: resolved host and port.

        Raises:
            OSError: refused at once, or no file descriptor is left.
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
        """Accept a request; `write` sends it."""
        self._unsent = request
        self._received.clear()

    def write(self) -> bool:
        """Send what can be sent now; return whether the whole request has left."""
        try:
            self._unsent = self._unsent[self.socket.send(self._unsent) :]
        except BlockingIOError:
            return False
        return not self._unsent

    def read(self) -> Reply | None:
        """Read what has come; return the response once it is complete. Errors as in `take`."""
        try:
            data = self.socket.recv(CHUNK_BYTES)
        except BlockingIOError:
            return None
        if (reply := take(self._received, data)) is not None:
            self.keeps = bool(data) and not reply.closes
        return reply

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()
