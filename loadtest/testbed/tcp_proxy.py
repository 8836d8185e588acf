"""TCP proxies in front of a server; one can delay each of its responses, or drop it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

from loadtest.driver.http_client import CHUNK_BYTES, HOST
from loadtest.testbed.listener import Listener, shut


class TcpProxy(Listener):
    """Forwards everything.

    Attributes:
        url: the same server, through this proxy.
    """

    def __init__(self, url: str) -> None:
        """Listen on a free port.

        Args:
            url: of the server behind it.
        """
        parts = urlsplit(url)
        self._upstream = (parts.hostname or HOST, parts.port or 0)
        self._lock = threading.Lock()
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
            client.sendall(data)


class DelayingProxy(TcpProxy):
    """Forwards everything, the server's responses after a delay.

    Attributes:
        delay_s: of each response, in seconds.
        loses: called with each piece of a response; where it returns True, the connection is cut instead.
    """

    def __init__(self, url: str) -> None:
        """Listen; argument as in `TcpProxy`."""
        self.delay_s = 0.0
        self.loses: Callable[[bytes], bool] = loses_nothing
        super().__init__(url)

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        while data := server.recv(CHUNK_BYTES):
            time.sleep(self.delay_s)
            if self.loses(data):
                return
            client.sendall(data)


def loses_nothing(_: bytes) -> bool:
    """Keep every response."""
    return False


def _forward(client: socket.socket, server: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := client.recv(CHUNK_BYTES):
            server.sendall(data)
    shut(client)
    shut(server)


@contextmanager
def relay_to(url: str) -> Iterator[DelayingProxy]:
    """Run a proxy in front of the server of this URL until the block ends."""
    with contextlib.closing(DelayingProxy(url)) as proxy:
        yield proxy
