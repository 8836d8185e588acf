"""`create_app`: the WSGI application around the services of one process."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from flask import Flask, Request, Response, request
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface
from flask_wtf import CSRFProtect
from itsdangerous import BadSignature
from prometheus_client import Counter

from couponapp import metrics
from couponapp.config import parsers, settings
from couponapp.config.settings import Settings
from couponapp.services import Services, compose
from couponapp.web import error_handlers, limits
from couponapp.web.api.openapi import openapi
from couponapp.web.api.views import API_PREFIX, api
from couponapp.web.current import EXTENSION
from couponapp.web.hosts import check_request
from couponapp.web.inputs import MAX_BODY_BYTES
from couponapp.web.pages.views import login, pages
from couponapp.web.probes import probes
from couponapp.web.proxies import TrustedProxies
from couponapp.web.responses import SECURITY_HEADERS, JsonResponse


def create_app(config: Settings | None = None, services: Services | None = None) -> Flask:
    """Return the WSGI application. Connects nowhere: its services start after the fork, or at the first request.

    Args:
        config: the settings; read from the environment when left out.
        services: what it works with; composed from the settings when left out.

    Raises:
        couponapp.errors.ConfigurationError: a setting is missing or wrong.
    """
    config = config or settings.load()
    config.require_for_web()
    services = services or compose(config)
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
        PROVIDE_AUTOMATIC_OPTIONS=False,  # 405 like any other method that has no view
        WTF_CSRF_CHECK_DEFAULT=False,  # check_request decides
        WTF_CSRF_TIME_LIMIT=None,  # a page may be open for hours before its event opens
        WTF_CSRF_SSL_STRICT=False,  # the Referer check; the token is what counts
    )
    app.session_interface = SessionOfPages()
    app.url_map.merge_slashes = False
    if config.trusted_proxies:
        app.wsgi_app = TrustedProxies(app.wsgi_app, config.trusted_proxies)  # type: ignore[method-assign]
    app.extensions[EXTENSION] = services
    csrf = CSRFProtect(app)
    for blueprint in (api, pages, probes, openapi, *([login] if config.demo_login else [])):
        app.register_blueprint(blueprint)
    limits.install(app, services)
    error_handlers.register(app)
    app.before_request(services.start)
    app.before_request(lambda: check_request(csrf, config.allowed_hosts))
    app.after_request(_finish)
    return app


class _App(Flask):
    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function as it is: none of ours is a coroutine, and Flask would look at each at each request."""
        return func


class SessionOfPages(SecureCookieSessionInterface):
    """Sessions for the pages only: opening one takes longer than finding the view, and the API needs none.

    A session does not age, except in the browser: Flask refuses one where the clock of the machine that
    made it is ahead of this one's, and the page's form with it. It holds no more than the forms' secret.
    """

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        """Return the visitor's session; for the API an empty one that cannot be written."""
        if request.path.startswith(API_PREFIX) or (signer := self.get_signing_serializer(app)) is None:
            return None
        try:
            return self.session_class(signer.loads(request.cookies.get(self.get_cookie_name(app), "")))
        except BadSignature:
            return self.session_class()


def _finish(response: Response) -> Response:
    _counter(request.endpoint or "none", response.status_code).inc()
    if not isinstance(response, JsonResponse):  # a page, a file: JSON has them from the start
        for name, value in SECURITY_HEADERS:
            response.headers.setdefault(name, value)
    return response


@lru_cache(maxsize=1024)
def _counter(route: str, status: int) -> Counter:
    return metrics.REQUESTS.labels(route, str(status))
