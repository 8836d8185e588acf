"""Relays in front of a server; one can make each of its answers late, or lose it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

from loadtest.driver.http_client import HOST

CHUNK_BYTES = 65536


class TcpProxy:
    """Passes everything on.

    Attributes:
        port: where it listens.
        url: the same server, through this relay.
    """

    def __init__(self, url: str) -> None:
        """Listen on a free port.

        Args:
            url: of the server behind it.
        """
        parts = urlsplit(url)
        self._upstream = (parts.hostname or HOST, parts.port or 0)
        self._listener = socket.create_server((HOST, 0))
        userinfo = parts.netloc.rpartition("@")[0]
        self.port: int = self._listener.getsockname()[1]
        self.url = urlunsplit(parts._replace(netloc=f"{userinfo}@{HOST}:{self.port}"))
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End all connections and accept no more."""
        _close(self._listener)
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
        _close(server)
        _close(client)

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        """Pass on what one connection is answered; when this returns, the connection ends."""
        while data := server.recv(CHUNK_BYTES):
            client.sendall(data)


class DelayingProxy(TcpProxy):
    """Passes everything on, the server's answers after `delay_s` seconds.

    Attributes:
        delay_s: how late each answer comes, in seconds.
        loses: asked about each piece of an answer; where it says yes, the connection is cut instead.
    """

    def __init__(self, url: str) -> None:
        """Listen; argument as in `TcpProxy`."""
        self.delay_s = 0.0
        self.loses: Callable[[bytes], bool] = passes_all
        super().__init__(url)

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        while data := server.recv(CHUNK_BYTES):
            time.sleep(self.delay_s)
            if self.loses(data):
                return
            client.sendall(data)


def passes_all(_: bytes) -> bool:
    """Loses nothing."""
    return False


def _pump(client: socket.socket, server: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := client.recv(CHUNK_BYTES):
            server.sendall(data)
    _close(client)
    _close(server)


def _close(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


@contextmanager
def relay_to(url: str) -> Iterator[DelayingProxy]:
    """A relay in front of the server of this URL."""
    with contextlib.closing(DelayingProxy(url)) as relay:
        yield relay
