"""A TCP proxy in front of a server, which can delay each of its responses, or drop it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit, urlunsplit

from loadtest.driver.http_client import CHUNK_BYTES, HOST
from loadtest.testbed.listener import Listener, shut


class TcpProxy(Listener):
    """Forwards everything, the server's responses after a delay.

    Attributes:
        url: the same server, through this proxy.
        delay_s: of each response, in seconds.
        cuts_at: called with each piece of a response; where it returns True, the connection is cut instead.
    """

    def __init__(self, url: str) -> None:
        """Listen on a free port.

        Args:
            url: of the server behind it.
        """
        self.delay_s = 0.0
        self.cuts_at: Callable[[bytes], bool] = cuts_nothing
        parts = urlsplit(url)
        self._upstream = (parts.hostname or HOST, parts.port or 0)
        super().__init__()
        userinfo = parts.netloc.rpartition("@")[0]
        self.url = urlunsplit(parts._replace(netloc=f"{userinfo}@{HOST}:{self.port}"))

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), socket.create_connection(self._upstream) as server:
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_forward, args=(client, server), daemon=True).start()
            with contextlib.suppress(OSError):
                self._answer(client, server)
            shut(server)
        shut(client)

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        """Forward the responses of one connection; when this returns, the connection ends."""
        while data := server.recv(CHUNK_BYTES):
            time.sleep(self.delay_s)
            if self.cuts_at(data):
                return
            client.sendall(data)


def cuts_nothing(_: bytes) -> bool:
    """Keep every response."""
    return False


def _forward(client: socket.socket, server: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := client.recv(CHUNK_BYTES):
            server.sendall(data)
    shut(client)
    shut(server)
