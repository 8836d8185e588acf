"""The other end of the webhook: a shop that accepts every event, until it is told to misbehave."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from loadtest.testbed.http_receiver import Behaviour, answers, receiving

# Longer than any try lasts.
HANG_S = 60.0


class WebhookReceiver:
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


@contextmanager
def running_receiver() -> Iterator[WebhookReceiver]:
    """Listen on loopback until the block ends."""
    shop = WebhookReceiver()
    with receiving(shop.take) as shop.port:
        try:
            yield shop
        finally:
            shop.over.set()
