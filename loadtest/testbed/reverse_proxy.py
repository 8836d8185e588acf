"""A reverse proxy in front of several web servers, any of which can be taken out and put in again."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from loadtest.driver.http_client import HOST

# Longer than any answer may take.
TIMEOUT_S = 10.0
BAD_GATEWAY = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass
class Upstream:
    """One web server behind the proxy.

    Attributes:
        port: its own.
        is_in: new requests may go there.
        under_way: requests that it has not answered yet.
        answered: those that it has.
    """

    port: int
    is_in: bool = True
    under_way: int = 0
    answered: int = 0


class ReverseProxy:
    """Keeps its clients' connections, and makes one to a web server for each request, as nginx does by default."""

    def __init__(self, ports: Sequence[int]) -> None:
        """Listen on a free port.

        Args:
            ports: of the web servers.
        """
        self.upstreams = [Upstream(port) for port in ports]
        self._changed = threading.Condition()
        self._listener = socket.create_server((HOST, 0), backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def take_out(self, upstream: Upstream) -> None:
        """Pass nothing more on to this one; returns when it has answered all that was.

        Raises:
            RuntimeError: it does not.
        """
        with self._changed:
            upstream.is_in = False
            if not self._changed.wait_for(lambda: not upstream.under_way, TIMEOUT_S):
                raise RuntimeError(f"{upstream.under_way} requests are still under way")

    def put_in(self, upstream: Upstream) -> None:
        """Pass requests on to this one again."""
        with self._changed:
            upstream.is_in = True
            upstream.answered = 0

    def close(self) -> None:
        """Accept no more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with client, contextlib.suppress(OSError):
            while request := _read_request(client):
                answer = self._ask(request)
                client.sendall(answer)
                if b"\r\nConnection: close" in answer.partition(b"\r\n\r\n")[0]:
                    return

    def _ask(self, request: bytes) -> bytes:
        with self._changed:
            chosen = min((one for one in self.upstreams if one.is_in), key=lambda one: one.under_way, default=None)
            if chosen is None:
                return BAD_GATEWAY
            chosen.under_way += 1
        try:
            answer = _exchange(chosen.port, request)
        except OSError:
            answer = b""
        with self._changed:
            chosen.under_way -= 1
            chosen.answered += bool(answer)
            self._changed.notify_all()
        return answer or BAD_GATEWAY


def _read_request(client: socket.socket) -> bytes:
    """One whole request; nothing where the client has gone."""
    data = b""
    while (end := data.find(b"\r\n\r\n")) < 0:
        if not (more := client.recv(65536)):
            return b""
        data += more
    length = re.search(rb"\r\ncontent-length: *([0-9]+)", data[:end], re.IGNORECASE)
    while len(data) < end + 4 + (int(length[1]) if length else 0):
        if not (more := client.recv(65536)):
            return b""
        data += more
    return data


def _exchange(port: int, request: bytes) -> bytes:
    line, _, rest = request.partition(b"\r\n")
    with socket.create_connection((HOST, port), timeout=TIMEOUT_S) as upstream:
        upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        upstream.sendall(line + b"\r\nConnection: close\r\n" + rest)
        answer = b"".join(iter(lambda: upstream.recv(65536), b""))
    # Of the connection behind the proxy, not of the client's.
    return answer.replace(b"\r\nConnection: close", b"", 1)


@contextmanager
def proxy_to(ports: Sequence[int]) -> Iterator[ReverseProxy]:
    """A proxy in front of the web servers on these ports."""
    proxy = ReverseProxy(ports)
    try:
        yield proxy
    finally:
        proxy.close()
