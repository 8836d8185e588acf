"""A relay in front of PostgreSQL that understands just enough of its protocol to lose answers.

Frames from the server are a type byte and a length that counts itself (PostgreSQL docs, «Message
Formats»). `Z` (ReadyForQuery) ends the answer to one round trip; with autocommit it comes after
the commit.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

READY_FOR_QUERY = b"Z"
# The login, and the look of `couponapp.storage.session` at the new connection: neither counts, nor gets lost.
BEFORE_USE = 2
PARAMETER_STATUS = b"S"


class PgRelay:
    """Passes everything on, except what it is told to lose or change."""

    def __init__(self, upstream: tuple[str, int]) -> None:
        self._upstream = upstream
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]
        self.round_trips = 0
        self.lost = 0
        self.loses: Callable[[], bool] = lambda: False
        self.server_version: bytes | None = None
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, url: str) -> str:
        """The same database, through this relay and without TLS."""
        parts = urlsplit(url)
        userinfo = parts.netloc.rpartition("@")[0]
        return urlunsplit(parts._replace(netloc=f"{userinfo}@127.0.0.1:{self.port}", query="sslmode=disable"))

    def close(self) -> None:
        """End all connections and accept no more."""
        self._listener.close()
        with self._lock:
            for one in self._sockets:
                _close(one)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self._upstream)
        except OSError:
            _close(client)
            return
        for one in (client, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._sockets += [client, server]
        threading.Thread(target=_pump, args=(client, server), daemon=True).start()
        with contextlib.suppress(OSError):
            self._answer(client, server)
        _close(client)
        _close(server)

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


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    _close(target)


def _close(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


@contextmanager
def relay_to(url: str) -> Iterator[PgRelay]:
    """A relay in front of the server of this URL."""
    parts = urlsplit(url)
    relay = PgRelay((parts.hostname or "127.0.0.1", parts.port or 5432))
    try:
        yield relay
    finally:
        relay.close()
