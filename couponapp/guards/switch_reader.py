"""What operators decide while the service runs, as this process has last read it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)

# How often they are read, in seconds: what is decided holds in every process within one second.
EVERY_S = 0.5

Tell = Callable[[str | None], None]


class SwitchReader:
    """Values by name, read again and again by one thread of their own.

    Who asks gets the last known value at once; nobody ever waits for a read. Where it fails, the
    last known values stay.
    """

    def __init__(self, read: Callable[[], Mapping[str, str]], clock: Callable[[], float] = time.monotonic) -> None:
        """Keep the reader; nothing is read yet.

        Args:
            read: gets all values by name, in bounded time.
            clock: monotonic, in seconds.
        """
        self._read = read
        self._clock = clock
        self._values: Mapping[str, str] = {}
        self._tells: dict[str, Tell] = {}
        self._read_s = clock()
        self._fails = False

    def value(self, name: str) -> str | None:
        """The last known value, or None where nobody has decided anything."""
        return self._values.get(name)

    def on_change(self, name: str, tell: Tell) -> None:
        """Have somebody told of a switch whenever its value changes.

        Args:
            name: which one.
            tell: gets the new value, or None where nobody decides any more; raises an error for
                one that it does not know, which is logged, and goes on with what it had.
        """
        self._tells[name] = tell

    def age_s(self) -> float:
        """How long ago the values were read, or this was made, in seconds."""
        return self._clock() - self._read_s

    def refresh(self) -> bool:
        """Read now, and tell of what has changed. For one thread at a time.

        Returns:
            Whether they could be read.
        """
        asked_s = self._clock()
        try:
            values = dict(self._read())
        except Exception as error:  # whatever it is, what was decided stays decided
            if not self._fails:
                log.warning("switches: cannot be read, the last known values stay: %s", error)
            self._fails = True
            return False
        if self._fails:
            log.warning("switches: read again after %.1f s", self.age_s())
        before, self._values = self._values, values
        self._fails, self._read_s = False, asked_s
        for name in sorted(before.keys() | values.keys()):
            if before.get(name) != values.get(name):
                self._tell(name, before.get(name), values.get(name))
        return True

    def watch(
        self,
        goes_on: Callable[[], bool],
        *,
        every_s: float = EVERY_S,
        pause: Callable[[float], object] | None = None,
    ) -> None:
        """Read again and again.

        Args:
            goes_on: asked before each read; once it says no, this returns.
            every_s: how long to wait in between, in seconds.
            pause: waits that long, or shorter where the process ends.
        """
        pause = pause or threading.Event().wait
        while goes_on():
            self.refresh()
            pause(every_s)

    def _tell(self, name: str, old: str | None, new: str | None) -> None:
        log.warning("switch %s: %s → %s", name, old or "not set", new or "not set")
        if name in self._tells:
            try:
                self._tells[name](new)
            except Exception as error:  # the others must be told all the same
                log.error("switch %s: nothing changes: %s", name, error)
