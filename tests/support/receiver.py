"""A receiver of webhooks: a real HTTP server that misbehaves as scripted."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any

from standardwebhooks import Webhook

from loadtest.testbed.http_receiver import Behaviour, answers, receiving

SECRET = "whsec_" + base64.b64encode(b"a-webhook-secret-of-32-bytes-123").decode()


@dataclass(frozen=True)
class Request:
    """A request whose signature was verified."""

    key: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Receiver:
    """A receiver that accepts everything, unless the next requests or all are scripted otherwise."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.accepted: Counter[str] = Counter()
        self.connections = 0
        self.always: Behaviour | None = None
        self.next: deque[Behaviour] = deque()
        self.before: Callable[[str], None] = lambda key: None
        self.after: Callable[[str], None] = lambda key: None
        self.port = 0
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks?from=coupons"

    def count_connection(self) -> None:
        """Count a new connection."""
        self.connections += 1

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        """Verify, record and answer one request."""
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        Webhook(SECRET).verify(body, headers)
        key = headers["webhook-id"]
        self.before(key)
        with self._lock:
            self.requests.append(Request(key, headers, body))
            behave = self.next.popleft() if self.next else self.always
            if behave is None:
                self.accepted[key] += 1
        (behave or answers(204))(handler)
        self.after(key)


def hang(until: threading.Event) -> Behaviour:
    """Send nothing until the event is set."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        until.wait(30)
        handler.close_connection = True

    return behave


def drip(until: threading.Event) -> Behaviour:
    """Answer byte by byte without end: no single wait is long."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not until.wait(0.05):
            handler.wfile.write(b".")

    return behave


def send_bytes(data: bytes) -> Behaviour:
    """Send these bytes as the answer."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(data)

    return behave


def send_byte_by_byte(data: bytes) -> Behaviour:
    """Send these bytes as the answer, each in a packet of its own."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        for at in range(len(data)):
            handler.wfile.write(data[at : at + 1])

    return behave


def send_without_end(start: bytes, again: bytes) -> Behaviour:
    """Send `start`, then `again` until the client closes the connection."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(start)
        while True:
            handler.wfile.write(again)

    return behave


@contextmanager
def running_receiver(*, tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """Listen on loopback until the block ends.

    Args:
        tls: with the server's certificate; plain HTTP if left out.
    """
    receiver = Receiver()
    with receiving(receiver.handle, connected=receiver.count_connection, tls=tls) as receiver.port:
        yield receiver
