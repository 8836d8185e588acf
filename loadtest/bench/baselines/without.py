"""Ours with one guard taken away at a time, all in the same processes, chosen by the path's first segment.

`/~limits/api/v1/…` goes to the application without rate limits, `/~/api/v1/…` to the one with all
guards. They share their pools and everything but the guard that is missing, so that what differs
between them is the guard, and not another process, another cache or another connection.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from couponapp.auth import tokens
from couponapp.config import settings
from couponapp.config.settings import Settings
from couponapp.guards.batcher import Batcher
from couponapp.guards.circuit_breaker import Call, CircuitBreaker
from couponapp.guards.deadline import Deadline
from couponapp.guards.hits import RateLimitStatus
from couponapp.guards.overload import OverloadGuard
from couponapp.issuing.catalogue import Catalogue, Coupon
from couponapp.issuing.sold_out import SoldOut
from couponapp.issuing.statement import IssueRequest, IssueResult, issue_batch
from couponapp.services import Services, compose, issue_batcher
from couponapp.storage.pool import Connection, Pool, Timeouts
from couponapp.web.app import create_app

PREFIX = "/~"


class NoLimits:
    """Lets every attempt pass and counts none."""

    def hit(self, user_id: str, address: str) -> RateLimitStatus:
        """Count nothing."""
        return RateLimitStatus(False, 0, 0, 0)


class NoOverloadGuard(OverloadGuard):
    """Refuses no request, however long it has waited."""

    def check(self) -> None:
        """Do nothing."""


class NoBreaker(CircuitBreaker):
    """Lets every call through and looks at no result."""

    @contextmanager
    def calling(self) -> Iterator[Call]:
        """Guard nothing."""
        yield Call(0, self._clock)


class NoBatcher(Batcher[int, IssueRequest, IssueResult]):
    """Runs every request at once and alone; it waits for a connection like any other."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def submit(
        self,
        request: IssueRequest,
        *,
        batch_key: int,
        unique_key: Hashable,
        deadline: Deadline,
        on_start: Callable[[], None] = lambda: None,
    ) -> IssueResult:
        """Run a request without a slot."""
        on_start()
        return issue_batch(self._pool, batch_key, [request], deadline=deadline)[0]


class NoCache(Catalogue):
    """Reads a coupon from PostgreSQL each time."""

    def coupon(self, coupon_id: int, *, wait_s: float | None = None) -> Coupon | None:
        """Return one coupon, read now."""
        return self._read_one(coupon_id)


class NoSoldOutList(SoldOut):
    """Never knows that a coupon is sold out."""

    def is_sold_out_for(self, coupon: Coupon, user_id: str, mono_s: float) -> bool:
        """Return that it is not known."""
        return False


class NoTokenCache(tokens.CachingVerifier):
    """Verifies a token each time."""

    def __init__(self, verifier: tokens.Verifier) -> None:
        self._uncached = verifier

    def verify(self, token: str) -> str:
        """Return the user that a token speaks for; raises Unauthenticated."""
        return self._uncached.verify(token).user_id


class Unwatched(Pool):
    """Cuts no connection off: only PostgreSQL's own time-outs bound a statement."""

    @contextmanager
    def connection(self, timeout_s: float | None = None) -> Iterator[Connection]:
        """Yield a pooled connection, for as long as it takes."""
        # Not the pool's own context manager, as in `Pool`: it commits, and what is measured is the watchdog.
        pool = self._open()
        connection = pool.getconn(self._timeouts.wait_s)
        try:
            yield connection
        finally:
            pool.putconn(connection)


def taken_away(services: Services) -> dict[str, Services]:
    """Return the services without one guard, by what is missing; under no name all of them.

    Args:
        services: with all guards.
    """
    config, pool = services.settings, services.issue_pool
    timeouts = Timeouts.within(config.deadline_ms)
    unwatched = Unwatched(config.database_url, name="unwatched", max_size=config.pool_issue, timeouts=timeouts)
    expected = tokens.ExpectedClaims(audience=config.jwt_audience, issuer=config.jwt_issuer)
    no_token_cache = NoTokenCache(tokens.SecretVerifier(config.jwt_secret, expected))
    no_cache = NoCache(services.read_pool)
    missing: dict[str, dict[str, Any]] = {
        "backlog": {"overload": NoOverloadGuard(target_s=0, patience_s=0)},
        "limits": {"limits": NoLimits()},
        "breaker": {"breaker": NoBreaker("none", is_failure=services.breaker.is_system_error)},
        "places": {"batcher": NoBatcher(pool)},
        "together": {"batcher": issue_batcher(config, pool, max_batch_size=1)},
        "watchdog": {"batcher": issue_batcher(config, unwatched)},
        "cache": {"catalogue": no_cache},
        "sold-out-memory": {"sold_out": NoSoldOutList(services.read_pool)},
    }
    variants = {
        name: replace(services, issuing=replace(services.issuing, **change)) for name, change in missing.items()
    }
    variants["cache"] = replace(variants["cache"], catalogue=no_cache)
    nothing = {part: one for change in missing.values() for part, one in change.items()}
    nothing["batcher"] = NoBatcher(unwatched)
    return {
        "": services,
        **variants,
        "token-memory": replace(services, verifier=no_token_cache),
        "any": replace(
            services, verifier=no_token_cache, catalogue=no_cache, issuing=replace(services.issuing, **nothing)
        ),
    }


class Chooser:
    """The application that the path's first segment names."""

    def __init__(self, config: Settings) -> None:
        """Make one application for each.

        Args:
            config: the settings of all of them.
        """
        self.services = compose(config)
        self.apps = {name: create_app(config, one) for name, one in taken_away(self.services).items()}
        # What gunicorn.conf.py starts after the fork, and the others share.
        self.extensions = self.apps[""].extensions

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Take the segment off and pass the request on."""
        path, name = environ["PATH_INFO"], ""
        if path.startswith(PREFIX):
            name, _, rest = path.removeprefix(PREFIX).partition("/")
            environ["PATH_INFO"] = "/" + rest
        return self.apps[name](environ, start_response)


def make_app() -> Chooser:
    """Return the application for gunicorn."""
    return Chooser(settings.load())
