"""The overload guard: an overloaded process refuses requests that have waited too long for their turn.

A request's deadline starts when its process begins to handle it. Before that it waits in a socket,
without a bound as soon as more requests arrive than the process can handle: the queue grows, every
request is answered late, and most clients have left by then. So the queue is kept short by controlled
delay (K. Nichols, V. Jacobson, «Controlling Queue Delay», ACM Queue 10(5), 2012; RFC 8289), which
distinguishes a burst from a standing queue. A burst is served completely. If every wait has been
longer than `target_s` for `patience_s`, the queue is standing, and requests that have waited longer
than `target_s` are refused until it is gone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from couponapp.errors import Overloaded

log = logging.getLogger(__name__)

# The least time between two log lines.
LOG_INTERVAL_S = 10.0


class OverloadGuard:
    """Measures how far behind this process's event loop is, and refuses requests that waited too long.

    The server reports each round of its event loop: it polls all sockets and then handles every request
    that has arrived, one after the other. A request that is handled late in a round has waited since the
    round began, at least. If no server reports rounds, nothing is ever refused.

    Only the event loop's thread may use it.
    """

    def __init__(self, *, target_s: float, patience_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with an empty queue.

        Args:
            target_s: an acceptable wait, in seconds; 0: any wait is acceptable.
            patience_s: for how long waits may be longer before requests are refused, in seconds.
            clock: monotonic, in seconds.
        """
        self._target_s = target_s
        self._patience_s = patience_s
        self._clock = clock
        self._round_began_s: float | None = None
        self._behind_since_s: float | None = None
        self._longest_s = 0.0
        self._logged_s = -LOG_INTERVAL_S

    def begin_round(self) -> None:
        """Note that the server has polled its sockets and begins to handle requests."""
        self._round_began_s = self._clock()

    def end_round(self) -> None:
        """Note that all requests of the round have been handled, or wait for another system."""
        if self._round_began_s is None:
            return
        lasted_s = self._clock() - self._round_began_s
        self._longest_s = max(self._longest_s, lasted_s)
        if lasted_s <= self._target_s:
            self._behind_since_s = None
        elif self._behind_since_s is None:
            self._behind_since_s = self._round_began_s

    def longest_s(self) -> float:
        """Return the longest round since the last call, in seconds."""
        longest_s, self._longest_s = self._longest_s, 0.0
        return longest_s

    def check(self) -> None:
        """Check the current request before it costs time.

        Raises:
            couponapp.errors.Overloaded: it has waited too long; later requests would wait even longer.
        """
        if self._round_began_s is None or not self._target_s:
            return
        now_s = self._clock()
        if now_s - self._round_began_s <= self._target_s:
            return
        since_s = self._round_began_s if self._behind_since_s is None else self._behind_since_s
        if now_s - since_s < self._patience_s:
            return
        if now_s - self._logged_s >= LOG_INTERVAL_S:
            self._logged_s = now_s
            log.warning("overload: more requests arrive than this process can handle; some are refused at once")
        raise Overloaded()
