"""The receiver of the webhook channel: accepts every event, until it is given another behaviour."""

from __future__ import annotations

import base64
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from loadtest.driver.http_client import HOST
from loadtest.testbed.http_receiver import Behaviour, answers, receiving

# Longer than any delivery attempt lasts.
HANG_S = 60.0
SECRET = "whsec_" + base64.b64encode(b"a-webhook-secret-of-32-bytes-123").decode()


def channel_to(port: int) -> dict[str, str]:
    """Return the settings of a service that notifies the receiver at this port of loopback, and no one else."""
    return {
        "COUPON_NOTIFY_CHANNELS": "webhook",
        "COUPON_WEBHOOK_URL": f"http://{HOST}:{port}/",
        "COUPON_WEBHOOK_SECRET": SECRET,
        "COUPON_WEBHOOK_PRIVATE": "1",
    }


class WebhookReceiver:
    """Counts the events that have come in.

    Attributes:
        accepted: how often each event was accepted, by its key.
        failed: how many requests were answered by `behaviour`.
        behaviour: how requests are answered instead of being accepted.
        before: called with each request.
        port: where it listens.
    """

    def __init__(self) -> None:
        self.accepted: Counter[str] = Counter()
        self.failed = 0
        self.behaviour: Behaviour | None = None
        self.before: Callable[[], object] = lambda: None
        self.port = 0
        self.over = threading.Event()
        self._lock = threading.Lock()

    def take(self, handler: BaseHTTPRequestHandler) -> None:
        """Handle one request."""
        handler.rfile.read(int(handler.headers["Content-Length"]))
        self.before()
        with self._lock:
            behaviour = self.behaviour
            if behaviour is None:
                self.accepted[handler.headers["webhook-id"]] += 1
            else:
                self.failed += 1
        (behaviour or answers(204))(handler)

    def at_the_next(self, act: Callable[[], object]) -> None:
        """Call a function once, in the middle of the next request."""

        def once() -> None:
            self.before = lambda: None
            act()

        self.before = once

    def hang(self, handler: BaseHTTPRequestHandler) -> None:
        """Send no response, and keep the connection open."""
        self.over.wait(HANG_S)
        handler.close_connection = True


@contextmanager
def running_receiver() -> Iterator[WebhookReceiver]:
    """Listen on loopback until the block ends."""
    receiver = WebhookReceiver()
    with receiving(receiver.take) as receiver.port:
        try:
            yield receiver
        finally:
            receiver.over.set()
