"""Rate limits: refused at once, never queued. State in Redis; without Redis, in the process."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from flask import Flask, Response
from flask_limiter import Limiter, RateLimitExceeded
from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from couponapp.errors import TooManyRequests
from couponapp.guards import strategy
from couponapp.guards.strategy import Asked, standing

# A limiter that waits would be the outage again. Measured: 54 ms once when Redis hangs.
REDIS_TIMEOUT_S = 0.05

_parse = lru_cache(maxsize=64)(parse)


@dataclass(frozen=True)
class Rates:
    """The numbers, as text such as `5/minute`.

    Attributes:
        per_user: for each user.
        together: for all users.
        per_process: in this process; empty for none.
    """

    per_user: str
    together: str
    per_process: str = ""


class RateLimits:
    """Per user, for all together, and for this process: all are passed, or none is counted."""

    def __init__(
        self, app: Flask, redis_url: str, *, scope: str, rates: Callable[[], Rates], processes: int = 1
    ) -> None:
        """Attach the limits to an application.

        Args:
            app: the application whose requests are limited.
            redis_url: where the counters lie.
            scope: what the counters are named by; equal scopes share them.
            rates: asked at every attempt, so that the numbers can change while running.
            processes: into how many parts the limit of all falls when Redis is away.
        """
        self._scope = scope
        self._rates = rates
        self._processes = processes
        self._process_storage = MemoryStorage()
        self._in_process = FixedWindowRateLimiter(self._process_storage)
        limiter = Limiter(
            key_func=lambda: scope,
            storage_uri=redis_url,
            storage_options={
                "socket_timeout": REDIS_TIMEOUT_S,  # type: ignore[dict-item]  # passed on to redis-py
                "socket_connect_timeout": REDIS_TIMEOUT_S,  # type: ignore[dict-item]  # likewise
            },
            strategy=strategy.NAME,
            in_memory_fallback_enabled=True,
            # Two requests that meet the failure at the same moment: the second one's error would
            # be a 500. A limiter that cannot count lets pass.
            swallow_errors=True,
        )
        limiter.init_app(app)
        app.after_request(_tell)

        @limiter.shared_limit(lambda: self._rates().together, scope=scope)
        def count() -> None:
            """Nothing to do: Flask-Limiter asks the strategy, and that counts."""

        self._count = count

    def check(self, user_id: str) -> None:
        """Count one attempt of a user.

        Raises:
            TooManyRequests: a limit refuses it; says when to try again.
        """
        rates = self._rates()
        asked = [
            Asked(f"{self._scope}:user:{user_id}", _parse(rates.per_user)),
            Asked(f"{self._scope}:all", _parse(rates.together), shared=True),
        ]
        per_process = _parse(rates.per_process) if rates.per_process else None
        if per_process is not None:
            self._take_in_process(per_process)
        strategy.ask(asked, self._processes)
        try:
            self._count()
        except RateLimitExceeded as refusal:
            if per_process is not None:
                self._give_back_in_process(per_process)
            seen = standing()
            raise TooManyRequests(seen.reset_s if seen else 1) from refusal

    def _take_in_process(self, limit: RateLimitItem) -> None:
        if not self._in_process.hit(limit, self._scope):
            reset_s = self._in_process.get_window_stats(limit, self._scope).reset_time - time.time()
            raise TooManyRequests(max(1, math.ceil(reset_s)))

    def _give_back_in_process(self, limit: RateLimitItem) -> None:
        # Refused elsewhere: what this process allows everybody is not used up by it.
        key = limit.key_for(self._scope)
        if self._process_storage.get(key) > 0:  # its window may have ended meanwhile
            self._process_storage.incr(key, limit.get_expiry(), amount=-1)


def _tell(response: Response) -> Response:
    """The `RateLimit-*` headers of the IETF draft, wherever something was counted."""
    if (seen := standing()) is not None:
        response.headers["RateLimit-Limit"] = str(seen.limit)
        response.headers["RateLimit-Remaining"] = str(seen.remaining)
        response.headers["RateLimit-Reset"] = str(seen.reset_s)
    return response
