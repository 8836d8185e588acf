"""TERM and Ctrl-C as a flag that a loop can check."""

from __future__ import annotations

import signal
import time

POLL_S = 0.05


class StopSignal:
    """A flag that signals set. Not a `threading.Event`: its `set` may deadlock in an interrupted handler."""

    def __init__(self, *numbers: signal.Signals) -> None:
        """Install the handlers.

        Args:
            numbers: the signals that set the flag.
        """
        self._set = False
        for number in numbers:
            signal.signal(number, self._handle)

    def is_set(self) -> bool:
        """Return whether a signal has come."""
        return self._set

    def wait(self, timeout_s: float) -> bool:
        """Wait for a signal, at most `timeout_s` seconds; return whether one has come."""
        give_up_s = time.monotonic() + timeout_s
        while not self._set and (left_s := give_up_s - time.monotonic()) > 0:
            time.sleep(min(POLL_S, left_s))
        return self._set

    def set(self) -> None:
        """Set the flag, as a signal does."""
        self._set = True

    def _handle(self, *_: object) -> None:
        self.set()
