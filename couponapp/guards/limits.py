"""Rate limits: refused at once, never queued. State in Redis; without Redis, in the process."""

from __future__ import annotations

import time

from flask import Flask, g
from flask_limiter import Limiter, RateLimitExceeded
from limits import parse
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from couponapp.errors import TooManyRequests

# A limiter that waits would be the outage again. Measured: 54 ms once when Redis hangs.
REDIS_TIMEOUT_S = 0.05


class RateLimits:
    """Per user, for all together, and for this process."""

    def __init__(
        self, app: Flask, redis_url: str, *, scope: str, per_user: str, together: str, per_process: str = ""
    ) -> None:
        """Attach the limits to an application.

        Args:
            app: the application whose requests are limited.
            redis_url: where the counters lie.
            scope: what the counters are named by; equal scopes share them.
            per_user: a rate such as `5/minute` for each user.
            together: the rate for all users.
            per_process: the rate in this process; empty for none.
        """
        limiter = Limiter(
            key_func=lambda: "all",
            storage_uri=redis_url,
            storage_options={
                "socket_timeout": REDIS_TIMEOUT_S,  # type: ignore[dict-item]  # passed on to redis-py
                "socket_connect_timeout": REDIS_TIMEOUT_S,  # type: ignore[dict-item]  # likewise
            },
            strategy="fixed-window",
            key_prefix="couponapp",
            fail_on_first_breach=True,
            in_memory_fallback_enabled=True,
            # Two requests that meet the failure at the same moment: the second one's error would
            # be a 500. A limiter that cannot count lets pass.
            swallow_errors=True,
        )
        limiter.init_app(app)
        self._limiter = limiter

        @limiter.shared_limit(together, scope=scope)
        @limiter.shared_limit(per_user, scope=scope, key_func=lambda: g.rate_limited_user)
        def count() -> None:
            """Nothing to do: the decorators count."""

        self._count = count
        self._process_limit = parse(per_process) if per_process else None
        self._in_process = FixedWindowRateLimiter(MemoryStorage())
        self._scope = scope

    def check(self, user_id: str) -> None:
        """Count one attempt of a user.

        Raises:
            TooManyRequests: a limit refuses it; says when to try again.
        """
        g.rate_limited_user = user_id
        try:
            self._count()
        except RateLimitExceeded as refusal:
            limit = self._limiter.current_limit
            reset_s = limit.reset_at if limit else time.time()
            raise TooManyRequests(max(1, round(reset_s - time.time()))) from refusal
        # Last: a user over his own limit must not use up what the process allows everybody.
        self._check_process()

    def _check_process(self) -> None:
        limit = self._process_limit
        if limit is not None and not self._in_process.hit(limit, self._scope):
            reset_s = self._in_process.get_window_stats(limit, self._scope).reset_time
            raise TooManyRequests(max(1, round(reset_s - time.time())))
