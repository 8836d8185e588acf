"""The operators' switches, as this process has last read them.

A thread reads them again and again (a greenlet in a web process), so that reads of a value never block.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)

# Time between two reads: a change takes effect in every process within one second.
READ_INTERVAL_S = 0.5

Listener = Callable[[str | None], None]


class SwitchReader:
    """The last known values by name. If they cannot be read, they stay."""

    def __init__(self, read: Callable[[], Mapping[str, str]], clock: Callable[[], float] = time.monotonic) -> None:
        """Start without values.

        Args:
            read: returns all values by name, in bounded time.
            clock: monotonic, in seconds.
        """
        self._read = read
        self._clock = clock
        self._values: Mapping[str, str] = {}
        self._listeners: dict[str, Listener] = {}
        self._read_s = clock()
        self._failing = False

    def value(self, name: str) -> str | None:
        """Return the last known value, or None if the switch is not set. Never blocks."""
        return self._values.get(name)

    def on_change(self, name: str, listener: Listener) -> None:
        """Call a function whenever the value of a switch changes.

        Args:
            name: the switch.
            listener: receives the new value, or None if the switch is no longer set. If it raises an
                error, because it does not know the value, the error is logged.
        """
        self._listeners[name] = listener

    def age_s(self) -> float:
        """Return the seconds since the last successful read, or since construction."""
        return self._clock() - self._read_s

    def refresh(self) -> bool:
        """Read the values now and call the listeners of those that changed. For one thread at a time.

        Returns:
            Whether they could be read.
        """
        started_s = self._clock()
        try:
            values = dict(self._read())
        except Exception as error:  # any error: the last known values stay
            if not self._failing:
                log.warning("switches: cannot be read, the last known values stay: %s", error)
            self._failing = True
            return False
        if self._failing:
            log.warning("switches: read again after %.1f s", self.age_s())
        before, self._values = self._values, values
        self._failing, self._read_s = False, started_s
        for name in sorted(before.keys() | values.keys()):
            if before.get(name) != values.get(name):
                self._notify(name, before.get(name), values.get(name))
        return True

    def watch(self, ending: threading.Event, *, every_s: float = READ_INTERVAL_S) -> None:
        """Read the values repeatedly.

        Args:
            ending: set when the process ends; then this returns.
            every_s: the pause between two reads, in seconds.
        """
        while not ending.is_set():
            self.refresh()
            ending.wait(every_s)

    def _notify(self, name: str, old: str | None, new: str | None) -> None:
        log.warning("switch %s: %s → %s", name, old or "not set", new or "not set")
        if name in self._listeners:
            try:
                self._listeners[name](new)
            except Exception as error:  # the other listeners must be called all the same
                log.error("switch %s: the change has no effect: %s", name, error)
