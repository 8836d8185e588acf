"""`create_app`: puts the parts of one web process together."""

from __future__ import annotations

import re

from flask import Flask, Response, request
from flask_wtf import CSRFProtect
from redis import Redis
from werkzeug.middleware.proxy_fix import ProxyFix

from couponapp import metrics, settings
from couponapp.errors import DeadlineExceeded, InvalidRequest, NotFound, Shed, Unavailable
from couponapp.guards.breaker import CircuitBreaker, Rules, StateLog
from couponapp.guards.bulkhead import Bulkhead
from couponapp.guards.limits import RateLimits, Rates
from couponapp.issuing.catalogue import Catalogue
from couponapp.issuing.sold_out import SoldOut
from couponapp.settings import Settings
from couponapp.storage.pool import Pool, Timeouts
from couponapp.tokens import verifier
from couponapp.web import failures
from couponapp.web.api import api
from couponapp.web.identity import Identity
from couponapp.web.inputs import MAX_BODY_BYTES
from couponapp.web.openapi import openapi
from couponapp.web.pages import login, pages
from couponapp.web.parts import EXTENSION, Parts, parts
from couponapp.web.probes import probes

# A ping that takes longer than this is as good as none.
PING_TIMEOUT_S = 0.2

# Twice the connections keeps them busy while others count their limits; more would only wait.
PLACES_PER_CONNECTION = 2
# Share of the deadline that an attempt must still have when its turn comes.
RESERVE = 0.3
# More than a process serves within any sensible deadline.
MAX_WAITING = 1000

# Only our own files; Pico's icons are data: images in its style sheet. No inline script or style.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)


def create_app(config: Settings | None = None) -> Flask:
    """The WSGI application. Connects nowhere: each part connects at its first use.

    Args:
        config: the settings; read from the environment when left out.

    Raises:
        couponapp.errors.ConfigurationError: a setting is missing or wrong.
    """
    config = config or settings.load()
    config.require_for_web()
    app = Flask("couponapp.web", static_url_path="/static")
    app.config.update(
        SECRET_KEY=config.secret_key,
        # One byte more, because a chunked body is cut off here without a word: see check_body.
        MAX_CONTENT_LENGTH=MAX_BODY_BYTES + 1,
        MAX_FORM_PARTS=20,
        SESSION_COOKIE_NAME=settings.SESSION_COOKIE,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_SECURE=config.cookie_secure,
        SEND_FILE_MAX_AGE_DEFAULT=300,  # their addresses carry no version
        PROVIDE_AUTOMATIC_OPTIONS=False,  # 405 like any other method that nobody needs
        WTF_CSRF_TIME_LIMIT=None,  # a page may be open for hours before its event opens
        WTF_CSRF_SSL_STRICT=False,  # the Referer check; the token is what counts
    )
    app.json.sort_keys = False  # type: ignore[attr-defined]  # Flask's own provider has it
    app.json.ensure_ascii = False  # type: ignore[attr-defined]  # likewise: Korean stays readable
    app.url_map.merge_slashes = False
    if config.trusted_proxies:
        hops = config.trusted_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops)  # type: ignore[method-assign]
    app.extensions[EXTENSION] = _make_parts(app, config)
    CSRFProtect(app).exempt(api)
    for blueprint in (api, pages, probes, openapi):
        app.register_blueprint(blueprint)
    if config.demo_login:
        app.register_blueprint(login)
    failures.register(app)
    app.before_request(_check_address)
    app.after_request(_finish)
    return app


def _make_parts(app: Flask, config: Settings) -> Parts:
    timeouts = Timeouts.within(config.deadline_ms)
    rates = Rates(config.limit_user, config.limit_global, config.limit_process)
    read_pool = Pool(config.database_url, name="read", max_size=config.pool_read, timeouts=timeouts)
    return Parts(
        settings=config,
        identity=Identity(verifier(config), config.cookie_name),
        issue_pool=Pool(config.database_url, name="issue", max_size=config.pool_issue, timeouts=timeouts),
        read_pool=read_pool,
        catalogue=Catalogue(read_pool),
        sold_out=SoldOut(read_pool),
        limits=RateLimits(
            app,
            config.redis_url,
            scope="issue",
            rates=lambda: rates,
            processes=config.web_processes,
        ),
        breaker=CircuitBreaker(
            "issue", is_failure=speaks_against_postgresql, rules=_breaker_rules(config), listeners=[StateLog()]
        ),
        bulkhead=Bulkhead(
            PLACES_PER_CONNECTION * config.pool_issue,
            max_waiting=MAX_WAITING,
            reserve_s=RESERVE * config.deadline_ms / 1000,
        ),
        redis=Redis.from_url(config.redis_url, socket_timeout=PING_TIMEOUT_S, socket_connect_timeout=PING_TIMEOUT_S),
    )


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


def speaks_against_postgresql(error: BaseException) -> bool:
    """Lost connections, time-outs, trouble on the server's side. Not what we ourselves refuse."""
    return isinstance(error, Unavailable) and not isinstance(error, Shed | DeadlineExceeded)


def _check_address() -> None:
    # Werkzeug takes «//metrics» for «/metrics»; a proxy that guards a path may not.
    if request.environ["PATH_INFO"].startswith("//"):
        raise NotFound()
    # The probes are asked by address, from load balancers that know no name.
    if request.blueprint == probes.name:
        return
    if not request.environ.get("HTTP_HOST"):
        raise InvalidRequest("Host: missing")
    # Not `request.trusted_hosts`: Flask has read `request.host` before any hook runs, so setting
    # them here has no effect, and werkzeug's comparison knows no IPv6 address.
    name = _PORT.sub("", request.host).lower()
    if not any(_covers(allowed, name) for allowed in parts().settings.allowed_hosts):
        raise InvalidRequest("Host: not one of COUPON_ALLOWED_HOSTS")


_PORT = re.compile(r":[0-9]+\Z")


def _covers(allowed: str, name: str) -> bool:
    return name == allowed.removeprefix(".") or (allowed.startswith(".") and name.endswith(allowed))


def _finish(response: Response) -> Response:
    metrics.REQUESTS.labels(request.endpoint or "none", str(response.status_code)).inc()
    headers = response.headers
    headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("Referrer-Policy", "same-origin")
    headers.setdefault("X-Frame-Options", "DENY")
    return response
