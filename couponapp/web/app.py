"""`create_app`: puts the parts of one web process together."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from flask import Flask, Request, Response, request
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface
from flask_wtf import CSRFProtect
from itsdangerous import BadSignature
from prometheus_client import Counter
from werkzeug.sansio.utils import get_host

from couponapp import metrics
from couponapp.auth.tokens import verifier
from couponapp.config import parsers, settings
from couponapp.config.settings import Settings
from couponapp.errors import (
    ConnectionLost,
    InvalidRequest,
    NotFound,
    PoolExhausted,
    ServerTrouble,
    StatementTimedOut,
)
from couponapp.guards.batcher import Batcher
from couponapp.guards.circuit_breaker import CircuitBreaker, Forced, Rules, StateLog
from couponapp.guards.deadline import Deadline
from couponapp.guards.overload import OverloadGuard
from couponapp.guards.rate_limits import LimitRates, RateLimits, headers_of
from couponapp.guards.strategy import rate_limit_status
from couponapp.guards.switch_reader import SwitchReader
from couponapp.issuing.catalogue import Catalogue
from couponapp.issuing.sold_out import SoldOut
from couponapp.issuing.statement import IssueRequest, IssueResult, issue_batch
from couponapp.operating import switches
from couponapp.storage.pool import Pool, Timeouts
from couponapp.storage.redis import connect
from couponapp.web import error_handlers
from couponapp.web.api.openapi import openapi
from couponapp.web.api.views import API_PREFIX, api
from couponapp.web.identity import Identity
from couponapp.web.inputs import MAX_BODY_BYTES
from couponapp.web.pages.views import login, pages
from couponapp.web.parts import EXTENSION, Parts
from couponapp.web.probes import probes
from couponapp.web.proxies import TrustedProxies
from couponapp.web.responses import SECURITY_HEADERS, JsonResponse

# A ping that takes longer than this is as good as none.
PING_TIMEOUT_S = 0.2

# Share of the deadline that an attempt must still have when its turn comes.
RESERVE = 0.3
# So many users in one statement cost little more than one (docs/decisions/0020), and what fails or
# waits for a lock fails or waits for no more than these.
MAX_TOGETHER = 50

# Probes and the operators' switches: one connection, which neither issuing nor look-ups can use
# up, and bounds that a load balancer's patience allows for. A lock is hardly waited for: only the
# switches can be locked, and the next probe needs the connection.
ADMIN_TIMEOUTS = Timeouts(total_s=1.0, wait_s=0.8, lock_ms=200, statement_ms=600)
MAX_WAITING_PROBES = 50


def create_app(config: Settings | None = None) -> Flask:
    """The WSGI application. Connects nowhere: each part connects at its first use.

    Args:
        config: the settings; read from the environment when left out.

    Raises:
        couponapp.errors.ConfigurationError: a setting is missing or wrong.
    """
    config = config or settings.load()
    config.require_for_web()
    app = _App("couponapp.web", static_url_path="/static")
    app.config.update(
        SECRET_KEY=config.secret_key,
        # One byte more, because a chunked body is cut off here without a word: see check_body.
        MAX_CONTENT_LENGTH=MAX_BODY_BYTES + 1,
        MAX_FORM_PARTS=20,
        SESSION_COOKIE_NAME=parsers.SESSION_COOKIE,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_SECURE=config.cookie_secure,
        SEND_FILE_MAX_AGE_DEFAULT=300,  # their addresses carry no version
        PROVIDE_AUTOMATIC_OPTIONS=False,  # 405 like any other method that nobody needs
        WTF_CSRF_CHECK_DEFAULT=False,  # _check_request decides
        WTF_CSRF_TIME_LIMIT=None,  # a page may be open for hours before its event opens
        WTF_CSRF_SSL_STRICT=False,  # the Referer check; the token is what counts
    )
    app.session_interface = SessionOfPages()
    app.url_map.merge_slashes = False
    if config.trusted_proxies:
        app.wsgi_app = TrustedProxies(app.wsgi_app, config.trusted_proxies)  # type: ignore[method-assign]
    app.extensions[EXTENSION] = _make_parts(config)
    csrf = CSRFProtect(app)
    for blueprint in (api, pages, probes, openapi):
        app.register_blueprint(blueprint)
    if config.demo_login:
        app.register_blueprint(login)
    error_handlers.register(app)
    app.before_request(lambda: _check_request(csrf, config.allowed_hosts))
    app.after_request(_finish)
    return app


class _App(Flask):
    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """The function as it is: none of ours is a coroutine, and Flask would look at each at each request."""
        return func


class SessionOfPages(SecureCookieSessionInterface):
    """The API knows no session, so it does not open one: that takes longer than finding the view.

    Nor does it age, except in the browser: Flask's own is refused where the clock of the machine that
    made it is ahead of this one's, and the page's form with it. It holds no more than the forms' secret.
    """

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        """The visitor's session; for the API an empty one that cannot be written."""
        if request.path.startswith(API_PREFIX) or (signer := self.get_signing_serializer(app)) is None:
            return None
        try:
            return self.session_class(signer.loads(request.cookies.get(self.get_cookie_name(app), "")))
        except BadSignature:
            return self.session_class()


def _make_parts(config: Settings) -> Parts:
    timeouts = Timeouts.within(config.deadline_ms)
    rates = LimitRates(config.limit_user, config.limit_global, config.limit_process, config.limit_address)
    issue_pool = Pool(config.database_url, name="issue", max_size=config.pool_issue, timeouts=timeouts)
    read_pool = Pool(
        config.database_url,
        name="read",
        max_size=config.pool_read,
        timeouts=timeouts,
        max_waiting=config.queue_read,
    )
    admin_pool = Pool(
        config.database_url, name="admin", max_size=1, timeouts=ADMIN_TIMEOUTS, max_waiting=MAX_WAITING_PROBES
    )
    breaker = CircuitBreaker(
        "issue", is_failure=is_database_failure, rules=_breaker_rules(config), listeners=[StateLog()]
    )
    return Parts(
        settings=config,
        identity=Identity(verifier(config), config.cookie_name),
        issue_pool=issue_pool,
        read_pool=read_pool,
        admin_pool=admin_pool,
        catalogue=Catalogue(read_pool),
        sold_out=SoldOut(read_pool),
        limits=RateLimits(
            lambda timeout_s: connect(config.redis_url, timeout_s=timeout_s),
            scope="issue",
            rates=lambda: rates,
            processes=config.web_processes,
        ),
        backlog=OverloadGuard(target_s=config.backlog_ms / 1000, patience_s=config.deadline_ms / 1000),
        breaker=breaker,
        bulkhead=_bulkhead(config, issue_pool),
        switches=_switches(admin_pool, breaker),
        redis=connect(config.redis_url, timeout_s=PING_TIMEOUT_S),
    )


def _bulkhead(config: Settings, pool: Pool) -> Batcher[tuple[int, IssueRequest], IssueResult]:
    def serve(asked: Sequence[tuple[int, IssueRequest]], timeout_s: float) -> list[IssueResult]:
        coupon_id = asked[0][0]
        return issue_batch(pool, coupon_id, [claim for _, claim in asked], deadline=Deadline(timeout_s))

    return Batcher(
        serve,
        places=config.pool_issue,  # as many as connections: nobody who has one waits for the other
        max_waiting=config.queue_issue,
        reserve_s=RESERVE * config.deadline_ms / 1000,
        same=lambda asked: asked[0],
        only_once=lambda asked: asked[1].user_id,
        max_group=MAX_TOGETHER,
    )


def _switches(pool: Pool, breaker: CircuitBreaker) -> SwitchReader:
    found = SwitchReader(lambda: switches.read_all(pool))
    found.on_change(switches.ISSUE_BREAKER, lambda value: breaker.force(Forced(value or Forced.NO)))
    return found


def _breaker_rules(config: Settings) -> Rules:
    return Rules(
        window=config.breaker_window,
        failure_rate=config.breaker_failure_rate,
        min_calls=config.breaker_min_calls,
        open_s=config.breaker_open_s,
        half_open_calls=config.breaker_half_open_calls,
        slow_call_s=config.breaker_slow_ms / 1000,
        slow_rate=config.breaker_slow_rate,
        # A guarded call ends within the deadline; one that is not back by twice that never will be.
        permit_s=2 * config.deadline_ms / 1000,
    )


def is_database_failure(error: BaseException) -> bool:
    """Lost connections, time-outs, trouble on the server's side. Not what we ourselves refuse."""
    return isinstance(error, ConnectionLost | StatementTimedOut | PoolExhausted | ServerTrouble)


def _check_request(csrf: CSRFProtect, allowed_hosts: tuple[str, ...]) -> None:
    environ, room = request.environ, request.blueprint
    # Werkzeug takes «//metrics» for «/metrics»; a proxy that guards a path may not.
    if environ["PATH_INFO"].startswith("//"):
        raise NotFound()
    # The probes are asked by address, from load balancers that know no name.
    if room == probes.name:
        return
    host = environ.get("HTTP_HOST")
    if not host:
        raise InvalidRequest("Host: missing")
    # Not `request.trusted_hosts`: Flask has read `request.host` before any hook runs, so setting
    # them here has no effect, and werkzeug's comparison knows no IPv6 address.
    if not _is_allowed(host, allowed_hosts):
        raise InvalidRequest("Host: not one of COUPON_ALLOWED_HOSTS")
    # The API takes no cookie, so nobody can be made to send one. Everything else is protected,
    # whatever may be added.
    if room != api.name:
        csrf.protect(apply_exemptions=True)


@lru_cache(maxsize=256)
def _is_allowed(host: str, allowed_hosts: tuple[str, ...]) -> bool:
    # «http» for both: only the standard ports differ, and no port matters here.
    name = _PORT.sub("", get_host("http", host)).lower()
    return any(_covers(allowed, name) for allowed in allowed_hosts)


_PORT = re.compile(r":[0-9]+\Z")


def _covers(allowed: str, name: str) -> bool:
    return name == allowed.removeprefix(".") or (allowed.startswith(".") and name.endswith(allowed))


def _finish(response: Response) -> Response:
    _counter(request.endpoint or "none", response.status_code).inc()
    headers = response.headers
    if not isinstance(response, JsonResponse):  # a page, a file: JSON has them from the start
        for name, value in SECURITY_HEADERS:
            headers.setdefault(name, value)
    if (seen := rate_limit_status()) is not None:
        headers.extend(headers_of(seen))
    return response


@lru_cache(maxsize=1024)
def _counter(route: str, status: int) -> Counter:
    return metrics.REQUESTS.labels(route, str(status))
