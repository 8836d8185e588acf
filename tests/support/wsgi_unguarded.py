"""The application with one guard taken away, which the fault tests must notice."""

from __future__ import annotations

import os
import threading
from dataclasses import replace

from couponapp.config import settings
from couponapp.guards.rate_limits import LimitRates, RateLimits
from couponapp.issuing.catalogue import Catalogue
from couponapp.storage import pool
from couponapp.storage.pool import Timeouts
from couponapp.storage.redis import connect
from couponapp.storage.watchdog import HasDescriptor, Watch, Watchdog
from couponapp.web import create_app
from couponapp.web.parts import EXTENSION, Parts

LONG_S = 60


class Asleep(Watchdog):
    """Never cuts a connection off."""

    def watch(self, connection: HasDescriptor, timeout_s: float) -> Watch:
        return Watch(connection, threading.Condition())


def without_bounds() -> None:
    """PostgreSQL may take as long as it likes, as with a driver's own settings."""
    pool._watchdog = Asleep()
    Timeouts.within = classmethod(  # type: ignore[assignment,method-assign]
        lambda cls, _: cls(total_s=LONG_S, wait_s=LONG_S, lock_ms=LONG_S * 1000, statement_ms=LONG_S * 1000)
    )


def without_pools_of_their_own(parts: Parts) -> Parts:
    """Look-ups and attempts share one pool."""
    return replace(parts, read_pool=parts.issue_pool, catalogue=Catalogue(parts.issue_pool))


def without_short_redis_time_outs(parts: Parts) -> Parts:
    """Redis may take five seconds, as with Flask-Limiter's own settings."""
    rates = LimitRates(config.limit_user, config.limit_global)
    limits = RateLimits(
        lambda timeout_s: connect(config.redis_url, timeout_s=timeout_s),
        scope="issue",
        rates=lambda: rates,
        timeout_s=5.0,
    )
    return replace(parts, limits=limits)


def without_a_look_at_sessions() -> None:
    """Every connection is taken as it is."""
    pool.Pool._verify_session = lambda self, connection: None  # type: ignore[method-assign]


config = settings.load()
if os.environ["WITHOUT"] == "bounds":
    without_bounds()
if os.environ["WITHOUT"] == "look at sessions":
    without_a_look_at_sessions()
app = create_app(config)
changes = {"pools": without_pools_of_their_own, "redis time-outs": without_short_redis_time_outs}
if change := changes.get(os.environ["WITHOUT"]):
    app.extensions[EXTENSION] = change(app.extensions[EXTENSION])
