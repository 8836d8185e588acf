"""The other end of the webhook: a shop that accepts every event, until it is told to misbehave."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from loadtest.client import HOST

# Longer than any try lasts.
HANG_S = 60.0
Behaviour = Callable[[BaseHTTPRequestHandler], None]


class Shop:
    """What has come in.

    Attributes:
        accepted: how often each event was, by its key.
        failed: how many requests were answered otherwise, or not at all.
        behaves: what it does instead of accepting.
        before: called with each event that comes in.
    """

    def __init__(self) -> None:
        self.accepted: Counter[str] = Counter()
        self.failed = 0
        self.behaves: Behaviour | None = None
        self.before: Callable[[], object] = lambda: None
        self.port = 0
        self.over = threading.Event()
        self._lock = threading.Lock()

    def take(self, handler: BaseHTTPRequestHandler) -> None:
        """Take one request."""
        handler.rfile.read(int(handler.headers["Content-Length"]))
        self.before()
        with self._lock:
            behaves = self.behaves
            if behaves is None:
                self.accepted[handler.headers["webhook-id"]] += 1
            else:
                self.failed += 1
        (behaves or answers(204))(handler)

    def at_the_next(self, act: Callable[[], object]) -> None:
        """Do something in the middle of the next event, and not again."""

        def once() -> None:
            self.before = lambda: None
            act()

        self.before = once

    def hangs(self, handler: BaseHTTPRequestHandler) -> None:
        """Say nothing, and do not hang up either."""
        self.over.wait(HANG_S)
        handler.close_connection = True


def answers(status: int, **headers: str) -> Behaviour:
    """Answer like this."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return behave


def closes_half_way(handler: BaseHTTPRequestHandler) -> None:
    """Begin an answer, and hang up."""
    handler.wfile.write(b"HTTP/1.1 200 O")
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


@contextmanager
def running_shop() -> Iterator[Shop]:
    """Listen on loopback until the block ends."""
    shop = Shop()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            shop.take(self)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """A client that was killed is no error of ours."""

    server = Server((HOST, 0), Handler)
    shop.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield shop
    finally:
        shop.over.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
