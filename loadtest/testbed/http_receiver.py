"""An HTTP server on loopback that takes POST requests, and ways to answer them well or badly."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from loadtest.driver.http_client import HOST

Behaviour = Callable[[BaseHTTPRequestHandler], None]


def answers(status: int, **headers: str) -> Behaviour:
    """Return a behaviour that answers with a status.

    Args:
        status: HTTP status.
        headers: more headers; `_` in a name stands for `-`.
    """

    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return behave


def closes_after(torn: bytes) -> Behaviour:
    """Return a behaviour that sends the beginning of a response and closes the connection."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(torn)
        handler.wfile.flush()
        handler.connection.shutdown(socket.SHUT_RDWR)
        handler.close_connection = True

    return behave


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: Any) -> None:
        """Ignore clients that were killed."""


@contextmanager
def receiving(
    take: Behaviour, *, connected: Callable[[], object] = lambda: None, tls: ssl.SSLContext | None = None
) -> Iterator[int]:
    """Listen until the block ends; yields the port.

    Args:
        take: called with each request.
        connected: called for each new connection.
        tls: with the server's certificate; plain HTTP if left out.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            connected()

        def do_POST(self) -> None:
            take(self)

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    server = _QuietServer((HOST, 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
