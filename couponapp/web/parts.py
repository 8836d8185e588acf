"""What the views of one process work with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from flask import current_app
from redis import Redis

from couponapp.guards.backlog import Backlog
from couponapp.guards.breaker import CircuitBreaker
from couponapp.guards.bulkhead import Bulkhead
from couponapp.guards.limits import RateLimits
from couponapp.guards.switches import Switches
from couponapp.issuing.catalogue import Catalogue
from couponapp.issuing.issue import Attempt, Claim
from couponapp.issuing.sold_out import SoldOut
from couponapp.settings import Settings
from couponapp.storage.pool import Pool
from couponapp.web.identity import Identity

EXTENSION = "couponapp"


@dataclass(frozen=True)
class Parts:
    """One of each, made by `create_app`."""

    settings: Settings
    identity: Identity
    issue_pool: Pool
    read_pool: Pool
    admin_pool: Pool
    catalogue: Catalogue
    sold_out: SoldOut
    limits: RateLimits
    backlog: Backlog
    breaker: CircuitBreaker
    bulkhead: Bulkhead[tuple[int, Claim], Attempt]
    switches: Switches
    redis: Redis

    @property
    def pools(self) -> tuple[Pool, ...]:
        """All pools, for metrics and shutdown."""
        return (self.issue_pool, self.read_pool, self.admin_pool)


def parts() -> Parts:
    """The parts of the current application."""
    return cast(Parts, current_app.extensions[EXTENSION])
