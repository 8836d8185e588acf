"""A relay in front of PostgreSQL that understands just enough of its protocol to lose answers.

Frames from the server are a type byte and a length that counts itself (PostgreSQL docs, «Message
Formats»). `Z` (ReadyForQuery) ends the answer to one round trip; with autocommit it comes after
the commit.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from urllib.parse import urlsplit, urlunsplit

from loadtest.testbed.tcp_proxy import TcpProxy

READY_FOR_QUERY = b"Z"
# The login, and the look of `couponapp.storage.session` at the new connection: neither counts, nor gets lost.
BEFORE_USE = 2
PARAMETER_STATUS = b"S"


class PostgresProxy(TcpProxy):
    """Passes everything on, except what it is told to lose or change.

    Attributes:
        round_trips: how many answers were complete.
        lost: how many of them it has lost.
        loses: asked at the end of each.
        server_version: what it says that the server's is, instead of the truth.
        url: the same database, through this relay and without TLS.
    """

    def __init__(self, url: str) -> None:
        self.round_trips = 0
        self.lost = 0
        self._lock = threading.Lock()
        self.loses: Callable[[], bool] = lambda: False
        self.server_version: bytes | None = None
        super().__init__(urlunsplit(urlsplit(url)._replace(query="sslmode=disable")))

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        stream = server.makefile("rb")
        answer, ready = b"", 0
        while head := stream.read(5):
            kind, length = head[:1], int.from_bytes(head[1:5], "big")
            body = stream.read(length - 4)
            if kind == PARAMETER_STATUS and self.server_version and body.startswith(b"server_version\0"):
                body = b"server_version\0" + self.server_version + b"\0"
                head = kind + (len(body) + 4).to_bytes(4, "big")
            answer += head + body
            if kind != READY_FOR_QUERY:
                if not ready:  # the client's next step needs each frame of the login
                    client.sendall(answer)
                    answer = b""
                continue
            if ready >= BEFORE_USE and self._is_lost():
                return
            client.sendall(answer)
            answer, ready = b"", ready + 1

    def _is_lost(self) -> bool:
        with self._lock:
            self.round_trips += 1
            lost = self.loses()
            self.lost += lost
            return lost


@contextmanager
def relay_to(url: str) -> Iterator[PostgresProxy]:
    """A relay in front of the server of this URL."""
    with closing(PostgresProxy(url)) as relay:
        yield relay
