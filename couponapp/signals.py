"""TERM and Ctrl-C as something that a loop can ask."""

from __future__ import annotations

import signal
import time

POLL_S = 0.05


class StopSignal:
    """Set by a signal. A plain flag: `threading.Event.set` may hang in a handler that is interrupted."""

    def __init__(self, *numbers: signal.Signals) -> None:
        """Listen from now on.

        Args:
            numbers: the signals that ask to stop.
        """
        self._set = False
        for number in numbers:
            signal.signal(number, self._handle)

    def is_set(self) -> bool:
        """Somebody has asked to stop."""
        return self._set

    def wait(self, timeout_s: float) -> bool:
        """Wait until asked to stop, at most so many seconds; tells whether asked."""
        give_up_s = time.monotonic() + timeout_s
        while not self._set and (left_s := give_up_s - time.monotonic()) > 0:
            time.sleep(min(POLL_S, left_s))
        return self._set

    def set(self) -> None:
        """Ask to stop, as a signal does."""
        self._set = True

    def _handle(self, *_: object) -> None:
        self.set()
