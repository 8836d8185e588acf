"""Refuses at once what has waited too long for its turn, in a process that cannot keep up.

The deadline of an attempt begins when its process looks at it. What waits before that, in the
sockets, waits without a bound as soon as more comes than the process can serve: the queue grows for
as long as the crowd stays, everybody is served late, and most have left by then. So the queue is
kept short: by controlled delay (K. Nichols, V. Jacobson, «Controlling Queue Delay», ACM Queue 10(5),
2012; RFC 8289), which tells a burst from a queue that does not go away. A burst is served, however
long its tail. Only where the wait has been longer than `target_s` all the time for `patience_s` is
the queue standing, and what has waited for longer than `target_s` is refused until it is gone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from couponapp.errors import Overloaded

log = logging.getLogger(__name__)

# Between two lines in the log.
TELL_EVERY_S = 10.0


class OverloadGuard:
    """How far behind the event loop of this process is.

    A server that works in rounds tells when one begins and ends: it looks which clients have sent
    something, and then serves them all, one after the other. Who is served late in a round has
    waited since its beginning at least. Where no server tells, nothing is ever refused.

    One thread alone uses it, that of the event loop.
    """

    def __init__(self, *, target_s: float, patience_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nothing waiting.

        Args:
            target_s: a wait up to this is fine, in seconds; 0: any is.
            patience_s: for how long a longer one may last before it is cut, in seconds.
            clock: monotonic, in seconds.
        """
        self._target_s = target_s
        self._patience_s = patience_s
        self._clock = clock
        self._began_s: float | None = None
        self._behind_since_s: float | None = None
        self._longest_s = 0.0
        self._told_s = -TELL_EVERY_S

    def begin_round(self) -> None:
        """The server knows who has sent something, and begins to serve them."""
        self._began_s = self._clock()

    def end_round(self) -> None:
        """All of them have been served, or wait for something else than this process."""
        if self._began_s is None:
            return
        lasted_s = self._clock() - self._began_s
        self._longest_s = max(self._longest_s, lasted_s)
        if lasted_s <= self._target_s:
            self._behind_since_s = None
        elif self._behind_since_s is None:
            self._behind_since_s = self._began_s

    def longest_s(self) -> float:
        """The longest round since this was last asked, in seconds."""
        longest_s, self._longest_s = self._longest_s, 0.0
        return longest_s

    def check(self) -> None:
        """Let somebody in who is about to cost time.

        Raises:
            couponapp.errors.Overloaded: too late: those behind would wait still longer.
        """
        if self._began_s is None or not self._target_s:
            return
        now_s = self._clock()
        if now_s - self._began_s <= self._target_s:
            return
        since_s = self._began_s if self._behind_since_s is None else self._behind_since_s
        if now_s - since_s < self._patience_s:
            return
        if now_s - self._told_s >= TELL_EVERY_S:
            self._told_s = now_s
            log.warning("backlog: more comes than this process can serve; some are refused at once")
        raise Overloaded()
