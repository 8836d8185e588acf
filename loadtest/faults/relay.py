"""A relay in front of a server that can make each of its answers late, or lose it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit


class Relay:
    """Passes everything on, the server's answers after `delay_s` seconds.

    Attributes:
        delay_s: how late each answer comes, in seconds.
        loses: asked about each piece of an answer; where it says yes, the connection is cut instead.
        port: where it listens.
        url: the same server, through this relay.
    """

    def __init__(self, url: str) -> None:
        """Listen on a free port.

        Args:
            url: of the server behind it.
        """
        self.delay_s = 0.0
        self.loses: Callable[[bytes], bool] = passes_all
        self._parts = urlsplit(url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        userinfo = self._parts.netloc.rpartition("@")[0]
        self.port: int = self._listener.getsockname()[1]
        self.url = urlunsplit(self._parts._replace(netloc=f"{userinfo}@127.0.0.1:{self.port}"))
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
                self._serve(self._listener.accept()[0])

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection((self._parts.hostname or "127.0.0.1", self._parts.port or 0))
        except OSError:
            _close(client)
            return
        with self._lock:
            self._sockets += [client, server]
        for source, target, late in ((client, server, False), (server, client, True)):
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._pump, args=(source, target, late), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, late: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if late:
                    time.sleep(self.delay_s)
                    if self.loses(data):
                        break
                target.sendall(data)
        _close(source)
        _close(target)


def passes_all(_: bytes) -> bool:
    """Loses nothing."""
    return False


def _close(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


@contextmanager
def relay_to(url: str) -> Iterator[Relay]:
    """A relay in front of the server of this URL."""
    relay = Relay(url)
    try:
        yield relay
    finally:
        relay.close()
