"""A relay in front of a TCP server that can make its answers late."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit


class SlowRelay:
    """Passes everything on; what the server says, `delay_s` seconds later."""

    def __init__(self, upstream: tuple[str, int]) -> None:
        self.delay_s = 0.0
        self._upstream = upstream
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listener]
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, url: str) -> str:
        """The same server, through this relay."""
        parts = urlsplit(url)
        return urlunsplit(parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{self.port}"))

    def close(self) -> None:
        """End all connections and accept no more."""
        for one in self._sockets:
            _close(one)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._upstream)
                self._sockets += (client, server)
                threading.Thread(target=self._pass_on, args=(client, server, False), daemon=True).start()
                threading.Thread(target=self._pass_on, args=(server, client, True), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, slowly: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if slowly:
                    time.sleep(self.delay_s)
                target.sendall(data)
        _close(source)
        _close(target)


def _close(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


@contextmanager
def slow_relay_to(url: str) -> Iterator[SlowRelay]:
    """A relay in front of the server of a URL."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    relay = SlowRelay((parts.hostname, parts.port))
    try:
        yield relay
    finally:
        relay.close()
