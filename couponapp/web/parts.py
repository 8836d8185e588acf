"""What the views of one process work with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from flask import current_app
from redis import Redis

from couponapp.config.settings import Settings
from couponapp.guards.batcher import Batcher
from couponapp.guards.circuit_breaker import CircuitBreaker
from couponapp.guards.overload import OverloadGuard
from couponapp.guards.rate_limits import RateLimits
from couponapp.guards.switch_reader import SwitchReader
from couponapp.issuing.catalogue import Catalogue
from couponapp.issuing.sold_out import SoldOut
from couponapp.issuing.statement import IssueRequest, IssueResult
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
    backlog: OverloadGuard
    breaker: CircuitBreaker
    bulkhead: Batcher[tuple[int, IssueRequest], IssueResult]
    switches: SwitchReader
    redis: Redis

    @property
    def pools(self) -> tuple[Pool, ...]:
        """All pools, for metrics and shutdown."""
        return (self.issue_pool, self.read_pool, self.admin_pool)


def parts() -> Parts:
    """The parts of the current application."""
    return cast(Parts, current_app.extensions[EXTENSION])
