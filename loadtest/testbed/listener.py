"""A socket on loopback that gives each connection a thread."""

from __future__ import annotations

import contextlib
import socket
import threading

from loadtest.driver.http_client import HOST


class Listener:
    """Accepts connections from construction on; a subclass serves them in `_serve`.

    Attributes:
        port: where it listens.
    """

    def __init__(self) -> None:
        """Listen on a free port. What `_serve` needs must be set before this is called."""
        self._listener = socket.create_server((HOST, 0), backlog=1024)
        self._clients: list[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept no more connections and end those that are open."""
        for one in (self._listener, *self._clients):
            shut(one)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._clients.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        raise NotImplementedError


def shut(one: socket.socket) -> None:
    """Close a socket, and wake up threads that wait for it."""
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
