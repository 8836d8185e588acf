"""Ends waits for a server that the server itself does not end.

PostgreSQL enforces `statement_timeout` itself. A server that is frozen, or stalls while it writes its
log at COMMIT, does not, and neither TCP nor libpq notices (docs/decisions/0011). So this process uses
its own clock and shuts the connection's socket down; the waiting thread then gets a broken connection
at once. The watchdog is one thread per process, a greenlet in a web process.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import socket
import threading
import time
from collections.abc import Callable
from typing import Protocol

import psycopg


class HasDescriptor(Protocol):
    """A connection of psycopg, or a socket."""

    def fileno(self) -> int:
        """Return the file descriptor; raises OSError if there is none."""


class Watch:
    """One bounded use of a connection. `fired`: the connection was shut down."""

    def __init__(self, connection: HasDescriptor, lock: threading.Condition) -> None:
        self.connection = connection
        self.active = True
        self.fired = False
        self._lock = lock

    def stop(self) -> bool:
        """End the watch and return whether it has fired. Afterwards it cannot fire."""
        with self._lock:
            self.active = False
            return self.fired


class Watchdog:
    """Bounds the uses of connections, by one thread for all of them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Set the clock. The thread starts at the first use, so after a fork.

        Args:
            clock: monotonic, in seconds.
        """
        self._clock = clock
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        # A watch that was stopped stays in the heap until its time comes.
        self._heap: list[tuple[float, int, Watch]] = []
        self._thread: threading.Thread | None = None

    def watch(self, connection: HasDescriptor, timeout_s: float) -> Watch:
        """Shut a connection down after a time, unless the watch is stopped before.

        Args:
            connection: used by the calling thread only.
            timeout_s: how long it may be used, in seconds.
        """
        watch = Watch(connection, self._changed)
        with self._changed:
            at_s = self._clock() + timeout_s
            heapq.heappush(self._heap, (at_s, next(self._numbers), watch))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
                self._thread.start()
            elif self._heap[0][2] is watch:
                self._changed.notify()
        return watch

    def _run(self) -> None:
        with self._changed:
            while True:
                now_s = self._clock()
                while self._heap and (self._heap[0][0] <= now_s or not self._heap[0][2].active):
                    watch = heapq.heappop(self._heap)[2]
                    if watch.active:
                        watch.fired = True
                        _shut_down(watch.connection)
                self._changed.wait(self._heap[0][0] - now_s if self._heap else None)


def _shut_down(connection: HasDescriptor) -> None:
    # Not close(): libpq's memory belongs to the waiting thread, which frees it when it wakes up.
    with contextlib.suppress(OSError, psycopg.Error):
        # Borrowed, not duplicated: when everything hangs there may be no descriptor left for a duplicate.
        borrowed = socket.socket(fileno=connection.fileno())
        try:
            borrowed.shutdown(socket.SHUT_RDWR)
        finally:
            borrowed.detach()
