"""Ours with one guard taken away at a time, all in the same processes, chosen by the path's first segment.

`/~limits/api/v1/…` goes to the application without rate limits, `/~/api/v1/…` to the one with all
guards. They share their pools and all parts but the one that is missing, so that what differs
between them is the guard, and not another process, another cache or another connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from wsgiref.types import StartResponse, WSGIEnvironment

from flask import Flask

from couponapp.auth import tokens
from couponapp.config import settings
from couponapp.config.settings import Settings
from couponapp.guards.batcher import Batcher
from couponapp.guards.circuit_breaker import Call, CircuitBreaker
from couponapp.guards.deadline import Deadline
from couponapp.guards.overload import OverloadGuard
from couponapp.guards.rate_limits import RateLimits
from couponapp.issuing.catalogue import Catalogue, Coupon
from couponapp.issuing.sold_out import SoldOut
from couponapp.issuing.statement import IssueRequest, IssueResult, issue_batch
from couponapp.storage.pool import Connection, Pool, Timeouts
from couponapp.web.app import MAX_TOGETHER, RESERVE, create_app
from couponapp.web.identity import Identity
from couponapp.web.parts import EXTENSION, Parts

PREFIX = "/~"
Hit = tuple[int, IssueRequest]


class NoLimits(RateLimits):
    """Lets everybody pass and counts nobody."""

    def __init__(self) -> None:
        pass

    def check(self, user_id: str, address: str = "") -> None:
        """Do nothing."""


class NoBacklog(OverloadGuard):
    """Refuses nobody, however long they have waited."""

    def check(self) -> None:
        """Do nothing."""


class NoBreaker(CircuitBreaker):
    """Lets every call through and looks at no result."""

    @contextmanager
    def calling(self) -> Iterator[Call]:
        """Guard nothing."""
        yield Call(0, self._clock)


class NoPlaces(Batcher[Hit, IssueResult]):
    """Whoever comes goes on at once, alone, and waits for a connection like anybody else."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def ask(self, question: Hit, deadline: Deadline, *, begins: Callable[[], None] = lambda: None) -> IssueResult:
        """Answer without a place."""
        begins()
        coupon_id, claim = question
        return issue_batch(self._pool, coupon_id, [claim], deadline=deadline)[0]


class NoCache(Catalogue):
    """Reads a coupon from PostgreSQL each time."""

    def coupon(self, coupon_id: int, *, wait_s: float | None = None) -> Coupon | None:
        """One coupon, read now."""
        return self._read_one(coupon_id)


class NoMemory(SoldOut):
    """Never knows that a coupon is sold out."""

    def is_sold_out_for(self, coupon: Coupon, user_id: str, mono_s: float) -> bool:
        """Not known."""
        return False


class Forgetting(tokens.CachingVerifier):
    """Verifies a token each time it comes."""

    def __init__(self, verifier: tokens.Verifier) -> None:
        self._asked_each_time = verifier

    def verify(self, token: str) -> str:
        """The user that a token speaks for; raises Unauthenticated."""
        return self._asked_each_time.verify(token).user_id


class Unwatched(Pool):
    """Cuts nobody off: only PostgreSQL's own time-outs bound a statement."""

    @contextmanager
    def connection(self, timeout_s: float | None = None) -> Iterator[Connection]:
        """A pooled connection, for as long as it takes."""
        # Not the pool's own context manager, as in `Pool`: it commits, and what is measured is the watchdog.
        pool = self._open()
        connection = pool.getconn(self._timeouts.wait_s)
        try:
            yield connection
        finally:
            pool.putconn(connection)


def places(pool: Pool, config: Settings, max_group: int) -> Batcher[Hit, IssueResult]:
    """Places as the service has them.

    Args:
        pool: on which the statements run.
        config: the settings.
        max_group: how many users may share a statement.
    """

    def serve(asked: Sequence[Hit], timeout_s: float) -> list[IssueResult]:
        return issue_batch(pool, asked[0][0], [claim for _, claim in asked], deadline=Deadline(timeout_s))

    return Batcher(
        serve,
        places=config.pool_issue,
        max_waiting=config.queue_issue,
        reserve_s=RESERVE * config.deadline_ms / 1000,
        same=lambda asked: asked[0],
        only_once=lambda asked: asked[1].user_id,
        max_group=max_group,
    )


def taken_away(whole: Parts) -> dict[str, Parts]:
    """The parts without one of them, by what is missing; under no name all of them.

    Args:
        whole: with all guards.
    """
    config, pool = whole.settings, whole.issue_pool
    timeouts = Timeouts.within(config.deadline_ms)
    unwatched = Unwatched(config.database_url, name="unwatched", max_size=config.pool_issue, timeouts=timeouts)
    claims = tokens.ExpectedClaims(audience=config.jwt_audience, issuer=config.jwt_issuer)
    forgetting = Forgetting(tokens.SecretVerifier(config.jwt_secret, claims))
    no_limits, no_cache, no_backlog = NoLimits(), NoCache(whole.read_pool), NoBacklog(target_s=0, patience_s=0)
    no_breaker = NoBreaker("none", is_failure=whole.breaker.is_system_error)
    forgetful = Identity(forgetting, config.cookie_name)
    return {
        "": whole,
        "backlog": replace(whole, backlog=no_backlog),
        "limits": replace(whole, limits=no_limits),
        "breaker": replace(whole, breaker=no_breaker),
        "places": replace(whole, bulkhead=NoPlaces(pool)),
        "together": replace(whole, bulkhead=places(pool, config, max_group=1)),
        "watchdog": replace(whole, issue_pool=unwatched, bulkhead=places(unwatched, config, MAX_TOGETHER)),
        "cache": replace(whole, catalogue=no_cache),
        "sold-out-memory": replace(whole, sold_out=NoMemory(whole.read_pool)),
        "token-memory": replace(whole, identity=forgetful),
        "any": replace(
            whole,
            backlog=no_backlog,
            limits=no_limits,
            breaker=no_breaker,
            issue_pool=unwatched,
            bulkhead=NoPlaces(unwatched),
            catalogue=no_cache,
            sold_out=NoMemory(whole.read_pool),
            identity=forgetful,
        ),
    }


class Chooser:
    """The application that the path's first segment names."""

    def __init__(self, config: Settings) -> None:
        """Make one application for each.

        Args:
            config: the settings of all of them.
        """
        first = create_app(config)
        # What gunicorn.conf.py warms up after the fork, and the others share.
        self.extensions = first.extensions
        self.apps = {name: self._with(parts) for name, parts in taken_away(first.extensions[EXTENSION]).items()}

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Take the segment off and pass the request on."""
        path, name = environ["PATH_INFO"], ""
        if path.startswith(PREFIX):
            name, _, rest = path.removeprefix(PREFIX).partition("/")
            environ["PATH_INFO"] = "/" + rest
        return self.apps[name](environ, start_response)

    @staticmethod
    def _with(parts: Parts) -> Flask:
        app = create_app(parts.settings)
        app.extensions[EXTENSION] = parts
        return app


def make_app() -> Chooser:
    """For gunicorn."""
    return Chooser(settings.load())
