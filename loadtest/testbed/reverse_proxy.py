"""A reverse proxy in front of several web servers, any of which can be taken out and put in again."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.driver.http_client import CHUNK_BYTES, HOST
from loadtest.testbed.listener import Listener

# Longer than any response may take.
TIMEOUT_S = 10.0
END = b"\r\n\r\n"
CLOSE = b"\r\nConnection: close"
BAD_GATEWAY = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0" + CLOSE + END


@dataclass
class Upstream:
    """One web server behind the proxy.

    Attributes:
        port: of the web server.
        is_in: whether it gets new requests.
        in_flight: requests that it has not answered yet.
        answered: requests that it has answered since it was put in.
    """

    port: int
    is_in: bool = True
    in_flight: int = 0
    answered: int = 0


class ReverseProxy(Listener):
    """Keeps its clients' connections, and opens one to a web server for each request, as nginx does by default.

    It understands requests without a body, which is all that a load sends.
    """

    def __init__(self, ports: Sequence[int]) -> None:
        """Listen on a free port.

        Args:
            ports: of the web servers.
        """
        self.upstreams = [Upstream(port) for port in ports]
        self._changed = threading.Condition()
        super().__init__()

    def take_out(self, upstream: Upstream) -> None:
        """Send no more requests to a web server; return when it has answered those in flight.

        Raises:
            RuntimeError: it does not answer them.
        """
        with self._changed:
            upstream.is_in = False
            if not self._changed.wait_for(lambda: not upstream.in_flight, TIMEOUT_S):
                raise RuntimeError(f"{upstream.in_flight} requests are still in flight")

    def put_in(self, upstream: Upstream) -> None:
        """Send requests to a web server again."""
        with self._changed:
            upstream.is_in = True
            upstream.answered = 0

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            while request := _read_request(client):
                response = self._response(request)
                client.sendall(response)
                if CLOSE in response.partition(END)[0]:
                    return

    def _response(self, request: bytes) -> bytes:
        with self._changed:
            chosen = min((one for one in self.upstreams if one.is_in), key=lambda one: one.in_flight, default=None)
            if chosen is None:
                return BAD_GATEWAY
            chosen.in_flight += 1
        try:
            response = _exchange(chosen.port, request)
        except OSError:
            response = b""
        with self._changed:
            chosen.in_flight -= 1
            chosen.answered += bool(response)
            self._changed.notify_all()
        return response or BAD_GATEWAY


def _read_request(client: socket.socket) -> bytes:
    """Return one complete request; nothing where the client has disconnected."""
    data = b""
    while not data.endswith(END):
        if not (more := client.recv(CHUNK_BYTES)):
            return b""
        data += more
    return data


def _exchange(port: int, request: bytes) -> bytes:
    line, _, rest = request.partition(b"\r\n")
    with socket.create_connection((HOST, port), timeout=TIMEOUT_S) as upstream:
        upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        upstream.sendall(line + CLOSE + b"\r\n" + rest)
        response = b"".join(iter(lambda: upstream.recv(CHUNK_BYTES), b""))
    # That header was about the connection to the web server, not about the client's.
    return response.replace(CLOSE, b"", 1)
