"""Ends a wait for PostgreSQL that PostgreSQL itself does not end.

`statement_timeout` is the server's promise. A server that is frozen, or stalls while it writes
its log at COMMIT, does not keep it, and neither TCP nor libpq notices (docs/decisions/0011). So
the client looks at its own clock and shuts the connection's socket, which makes the waiting
thread see a broken connection at once.
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
    """A connection: of psycopg, or a socket."""

    def fileno(self) -> int:
        """Its descriptor; OSError where it has none."""


class Watch:
    """One bounded use of a connection; `fired` tells whether it was cut off."""

    def __init__(self, connection: HasDescriptor, lock: threading.Condition) -> None:
        self.connection = connection
        self.active = True
        self.fired = False
        self._lock = lock

    def stop(self) -> bool:
        """End the watch; tells whether it had fired. Afterwards it does not: the connection is somebody else's."""
        with self._lock:
            self.active = False
            return self.fired


class Watchdog:
    """One thread that looks after all connections of a process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start nothing yet: the thread begins with the first use, so after a fork.

        Args:
            clock: monotonic, in seconds.
        """
        self._clock = clock
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        # Whoever is done only says so; its entry stays until its time has come.
        self._heap: list[tuple[float, int, Watch]] = []
        self._thread: threading.Thread | None = None

    def watch(self, connection: HasDescriptor, timeout_s: float) -> Watch:
        """Cut the connection off after a time, unless the watch is stopped before.

        Args:
            connection: in use by this thread alone.
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
                        _shut(watch.connection)
                self._changed.wait(self._heap[0][0] - now_s if self._heap else None)


def _shut(connection: HasDescriptor) -> None:
    # Not close(): libpq's memory belongs to the thread that waits. It frees it when it wakes up.
    with contextlib.suppress(OSError, psycopg.Error):
        # Borrowed, not doubled: when everything hangs there may be no descriptor left for a double.
        borrowed = socket.socket(fileno=connection.fileno())
        try:
            borrowed.shutdown(socket.SHUT_RDWR)
        finally:
            borrowed.detach()
