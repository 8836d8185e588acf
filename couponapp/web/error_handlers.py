"""Whatever goes wrong becomes one answer: JSON, or a page where a browser asks for one."""

from __future__ import annotations

import logging

from flask import Flask, Response, make_response, render_template, request
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
from couponapp.web.responses import CODE_OF_STATUS, RESPONSES, answer, jittered_retry_after, message, retry_after

log = logging.getLogger(__name__)


def register(app: Flask) -> None:
    """Answer every error of ours, of the framework and of nobody's expectation."""
    app.register_error_handler(CouponAppError, _ours)
    app.register_error_handler(CSRFError, _csrf)
    app.register_error_handler(HTTPException, _frameworks)
    app.register_error_handler(Exception, _unexpected)


def headers_of(error: CouponAppError) -> dict[str, str]:
    """The headers that go with an error of ours."""
    if isinstance(error, TooManyRequests):
        return retry_after(error.retry_after_s)
    if isinstance(error, Unavailable):
        return jittered_retry_after()
    if error.code == "UNAUTHENTICATED":
        return {"WWW-Authenticate": 'Bearer realm="couponapp"'}
    return {}


def note(error: Unavailable) -> None:
    """Count a 503 and log what has caused it."""
    metrics.UNAVAILABLE.labels(type(error).__name__).inc()
    # What we refuse ourselves comes in crowds, and its cause has been told already.
    level = logging.DEBUG if isinstance(error, QueueFull | DeadlineExceeded | CircuitOpen) else logging.WARNING
    log.log(level, "503: %s: %s", type(error).__name__, error)


def _ours(error: CouponAppError) -> Response:
    if error.code not in RESPONSES or isinstance(error, ConfigurationError):
        return _unexpected(error)
    if isinstance(error, Unavailable):
        note(error)
    detail = str(error) if isinstance(error, InvalidRequest) else ""
    return _answer(error.code, detail=detail, headers=headers_of(error))


def _csrf(error: CSRFError) -> Response:
    return _answer("INVALID_REQUEST", detail="CSRF")


def _frameworks(error: HTTPException) -> Response:
    status = error.code or 500
    if status in (301, 302, 303, 307, 308):
        return make_response(error.get_response())
    code = CODE_OF_STATUS.get(status)
    if code is None:
        code = "INVALID_REQUEST" if 400 <= status < 500 else "INTERNAL_ERROR"
    allow = error.get_response().headers.get("Allow")
    return _answer(code, status=status, headers={"Allow": allow} if allow else {})


def _unexpected(error: Exception) -> Response:
    log.error("500: %s %s", request.method, request.path, exc_info=error)
    return _answer("INTERNAL_ERROR")


def _answer(
    code: str, *, detail: str = "", status: int | None = None, headers: dict[str, str] | None = None
) -> Response:
    if not wants_page():
        return answer(code, detail=detail, status=status, headers=headers)
    page = make_response(render_template("failure.html", code=code, message=message(code), detail=detail))
    page.status_code = status or RESPONSES[code].status
    page.headers.update(headers or {})
    page.headers["Cache-Control"] = "no-store"
    return page


def wants_page() -> bool:
    """A browser outside the API: JSON is the answer to everybody else."""
    if request.path.startswith("/api/"):
        return False
    return request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html"
