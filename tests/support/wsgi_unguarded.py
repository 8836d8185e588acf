"""The application with one guard taken away, which the fault tests must notice."""

from __future__ import annotations

import os
import threading
from dataclasses import replace

from couponapp.config import settings
from couponapp.guards.rate_limits import FallbackCounters
from couponapp.issuing.catalogue import Catalogue
from couponapp.services import Services, compose, rate_limits
from couponapp.storage import pool
from couponapp.storage.pool import Timeouts
from couponapp.storage.redis import connect
from couponapp.storage.watchdog import HasDescriptor, Watch, Watchdog
from couponapp.web import create_app

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


def without_pools_of_their_own(services: Services) -> Services:
    """Look-ups and attempts share one pool."""
    catalogue = Catalogue(services.issue_pool)
    issuing = replace(services.issuing, catalogue=catalogue)
    return replace(services, read_pool=services.issue_pool, catalogue=catalogue, issuing=issuing)


def without_short_redis_time_outs(services: Services) -> Services:
    """Redis may take five seconds, as with Flask-Limiter's own settings."""
    counters = FallbackCounters(lambda timeout_s: connect(config.redis_url, timeout_s=timeout_s), timeout_s=5.0)
    return replace(services, issuing=replace(services.issuing, limits=rate_limits(config, counters)))


def without_a_look_at_sessions() -> None:
    """Every connection is taken as it is."""
    pool.Pool._verify_session = lambda self, connection: None  # type: ignore[method-assign]


config = settings.load()
if os.environ["WITHOUT"] == "bounds":
    without_bounds()
if os.environ["WITHOUT"] == "look at sessions":
    without_a_look_at_sessions()
changes = {"pools": without_pools_of_their_own, "redis time-outs": without_short_redis_time_outs}
services = compose(config)
if change := changes.get(os.environ["WITHOUT"]):
    services = change(services)
app = create_app(config, services)
