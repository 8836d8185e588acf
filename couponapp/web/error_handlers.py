"""Every error becomes one response: JSON, or a page where a browser asks for one."""

from __future__ import annotations

import logging

from flask import Flask, Response, make_response, render_template, request
from flask_limiter import RateLimitExceeded
from flask_wtf.csrf import CSRFError
from werkzeug.exceptions import HTTPException

from couponapp import metrics
from couponapp.errors import (
    CircuitOpen,
    ConfigurationError,
    CouponAppError,
    DeadlineExceeded,
    InvalidRequest,
    QueueFull,
    TooManyRequests,
    Unavailable,
)
from couponapp.guards.hits import RateLimitStatus
from couponapp.web.limits import too_many_requests
from couponapp.web.responses import (
    CODE_OF_STATUS,
    RESPONSES,
    jittered_retry_after,
    json_response,
    message,
    rate_limit_headers,
    retry_after,
)

log = logging.getLogger(__name__)


def register(app: Flask) -> None:
    """Handle every error: ours, the framework's and unexpected ones."""
    app.register_error_handler(CouponAppError, _ours)
    app.register_error_handler(RateLimitExceeded, lambda error: _ours(too_many_requests(error)))
    app.register_error_handler(CSRFError, lambda _: _respond("INVALID_REQUEST", detail="CSRF"))
    app.register_error_handler(HTTPException, _frameworks)
    app.register_error_handler(Exception, _unexpected)


def headers_of(error: CouponAppError) -> dict[str, str]:
    """Return the headers that go with an error of ours."""
    if isinstance(error, TooManyRequests):
        used_up = RateLimitStatus(True, error.limit, 0, error.retry_after_s)
        return retry_after(error.retry_after_s) | (rate_limit_headers(used_up) if error.limit else {})
    if isinstance(error, Unavailable):
        return jittered_retry_after()
    if error.code == "UNAUTHENTICATED":
        return {"WWW-Authenticate": 'Bearer realm="couponapp"'}
    return {}


def report_unavailable(error: Unavailable) -> None:
    """Count a 503 and log its cause."""
    metrics.UNAVAILABLE.labels(type(error).__name__).inc()
    # What we refuse ourselves comes in crowds, and its cause is in the log already.
    level = logging.DEBUG if isinstance(error, QueueFull | DeadlineExceeded | CircuitOpen) else logging.WARNING
    log.log(level, "503: %s: %s", type(error).__name__, error)


def _ours(error: CouponAppError) -> Response:
    if error.code not in RESPONSES or isinstance(error, ConfigurationError):
        return _unexpected(error)
    if isinstance(error, Unavailable):
        report_unavailable(error)
    detail = str(error) if isinstance(error, InvalidRequest) else ""
    return _respond(error.code, detail=detail, headers=headers_of(error))


def _frameworks(error: HTTPException) -> Response:
    status = error.code or 500
    if status in (301, 302, 303, 307, 308):
        return make_response(error.get_response())
    code = CODE_OF_STATUS.get(status, "INVALID_REQUEST" if 400 <= status < 500 else "INTERNAL_ERROR")
    allow = error.get_response().headers.get("Allow")
    return _respond(code, status=status, headers={"Allow": allow} if allow else {})


def _unexpected(error: Exception) -> Response:
    log.error("500: %s %s", request.method, request.path, exc_info=error)
    return _respond("INTERNAL_ERROR")


def _respond(
    code: str, *, detail: str = "", status: int | None = None, headers: dict[str, str] | None = None
) -> Response:
    if not wants_page():
        return json_response(code, detail=detail, status=status, headers=headers)
    page = make_response(render_template("failure.html", code=code, message=message(code), detail=detail))
    page.status_code = status or RESPONSES[code].status
    page.headers.update(headers or {})
    page.headers["Cache-Control"] = "no-store"
    return page


def wants_page() -> bool:
    """Return whether a browser asks, outside the API; every other client gets JSON."""
    if request.path.startswith("/api/"):
        return False
    return request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html"
