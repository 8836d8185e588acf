"""Every JSON response: one shape, and one table from code to HTTP status and messages."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from flask import Response, request
from werkzeug.datastructures import Headers, LanguageAccept
from werkzeug.http import parse_accept_header

from couponapp.guards.hits import RateLimitStatus

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

LANGUAGES = ("ko", "en")

# Only our own files; Pico's icons are data: images in its style sheet. No inline script or style.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
# For JSON, which no page shows.
NOTHING_AT_ALL = "default-src 'none'; frame-ancestors 'none'"
SECURITY_HEADERS = (
    ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "same-origin"),
    ("X-Frame-Options", "DENY"),
)


class CodeEntry(NamedTuple):
    """A code's HTTP status and its message in each language."""

    status: int
    ko: str
    en: str


# The incident report's words for 429 and 503 are part of the contract.
RESPONSES: Mapping[str, CodeEntry] = {
    "OK": CodeEntry(200, "정상적으로 처리되었습니다.", "OK."),
    "ISSUED": CodeEntry(201, "쿠폰이 발급되었습니다.", "The coupon has been issued to you."),
    "ALREADY_ISSUED": CodeEntry(409, "이미 발급받은 쿠폰입니다.", "You already hold this coupon."),
    "SOLD_OUT": CodeEntry(409, "쿠폰이 모두 소진되었습니다.", "The coupon is sold out."),
    "NOT_OPEN": CodeEntry(409, "아직 쿠폰 발급이 시작되지 않았습니다.", "The coupon has not opened yet."),
    "CLOSED": CodeEntry(409, "쿠폰 발급이 종료되었습니다.", "The coupon is closed."),
    "PAUSED": CodeEntry(409, "쿠폰 발급이 일시 중지되었습니다.", "The coupon is paused."),
    "COUPON_NOT_FOUND": CodeEntry(404, "존재하지 않는 쿠폰입니다.", "There is no such coupon."),
    "IDEMPOTENCY_KEY_REUSED": CodeEntry(
        422,
        "이미 다른 쿠폰에 사용된 Idempotency-Key입니다.",
        "This Idempotency-Key was used for another coupon.",
    ),
    "TOO_MANY_REQUESTS": CodeEntry(
        429, "요청이 너무 많습니다. 잠시 후 다시 시도해주세요.", "Too many requests. Please try again shortly."
    ),
    "SERVICE_UNAVAILABLE": CodeEntry(
        503,
        "서비스 장애 발생. 잠시 후 다시 시도해주세요.",
        "The service is temporarily unavailable. Please try again shortly.",
    ),
    "INVALID_REQUEST": CodeEntry(400, "잘못된 요청입니다.", "The request is not valid."),
    "UNAUTHENTICATED": CodeEntry(401, "로그인이 필요합니다.", "A valid bearer token is needed."),
    "FORBIDDEN": CodeEntry(403, "권한이 없습니다.", "You may not do this."),
    "NOT_FOUND": CodeEntry(404, "찾을 수 없습니다.", "There is nothing here."),
    "METHOD_NOT_ALLOWED": CodeEntry(405, "허용되지 않는 메서드입니다.", "This method is not allowed here."),
    "REQUEST_TIMEOUT": CodeEntry(408, "요청이 제시간에 도착하지 않았습니다.", "The request did not arrive in time."),
    "PAYLOAD_TOO_LARGE": CodeEntry(413, "요청 본문이 너무 큽니다.", "The request body is too large."),
    "URI_TOO_LONG": CodeEntry(414, "요청 주소가 너무 깁니다.", "The address is too long."),
    "UNSUPPORTED_MEDIA_TYPE": CodeEntry(415, "지원하지 않는 형식입니다.", "This content type is not supported."),
    "INTERNAL_ERROR": CodeEntry(500, "서버 오류가 발생했습니다.", "Something went wrong on our side."),
    "READY": CodeEntry(200, "요청을 받을 수 있습니다.", "Ready for traffic."),
    "NOT_READY": CodeEntry(503, "요청을 받을 수 없습니다.", "Not ready for traffic."),
}

CODE_OF_STATUS = {
    400: "INVALID_REQUEST",
    401: "UNAUTHENTICATED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    408: "REQUEST_TIMEOUT",
    413: "PAYLOAD_TOO_LARGE",
    414: "URI_TOO_LONG",
    415: "UNSUPPORTED_MEDIA_TYPE",
}


def language() -> str:
    """Return the language of the request: see `preferred_language`."""
    return preferred_language(request.environ.get("HTTP_ACCEPT_LANGUAGE", ""))


@lru_cache(maxsize=256)
def preferred_language(accept_language: str) -> str:
    """Return `ko`, or `en` where a header Accept-Language prefers it."""
    return parse_accept_header(accept_language, LanguageAccept).best_match(LANGUAGES) or "ko"


def message(code: str) -> str:
    """Return a code's message in the request's language."""
    entry = RESPONSES[code]
    return entry.en if language() == "en" else entry.ko


def json_response(
    code: str,
    data: Any = None,
    *,
    detail: str = "",
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return one JSON response in the contract's shape.

    Args:
        code: a key of `RESPONSES`.
        data: a JSON value, or None.
        detail: what exactly is wrong, appended to the message.
        status: the HTTP status where it is not the code's own.
        headers: further headers.
    """
    lang = language()
    if data is None and not detail:
        body, fixed = _without_data(code, lang)
    else:
        body, fixed = _with_data(code, lang, data, detail)
    return JsonResponse(body, status or RESPONSES[code].status, [*fixed, *headers.items()] if headers else fixed[:])


def _with_data(code: str, lang: str, data: Any, detail: str) -> tuple[bytes, list[tuple[str, str]]]:
    """Return the body, and the headers that it always has."""
    entry = RESPONSES[code]
    text = (entry.en if lang == "en" else entry.ko) + (f" ({detail})" if detail else "")
    body = _encode({"success": entry.status < 400, "code": code, "message": text, "data": data}).encode()
    return body, [*_HEADERS, ("Content-Language", lang), ("Content-Length", str(len(body)))]


@lru_cache(maxsize=len(RESPONSES) * len(LANGUAGES))
def _without_data(code: str, lang: str) -> tuple[bytes, list[tuple[str, str]]]:
    """Return what most of a crowd receives, the same each time. The list must not be changed."""
    return _with_data(code, lang, None, "")


class JsonResponse(Response):
    """A JSON response that is complete from the start: Werkzeug need not inspect and copy it when it is sent."""

    def __init__(self, body: bytes, status: int, headers: list[tuple[str, str]]) -> None:
        """Keep everything as it is.

        Args:
            body: the encoded JSON.
            status: the HTTP status.
            headers: all of them, with the body's length; the list becomes the response's own.
        """
        # `Headers(headers)` would search all for each: as long as the other work on a short response.
        complete = Headers()
        complete._list = headers
        super().__init__([body], status, complete)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Send it as it is."""
        start_response(self.status, self.headers.to_wsgi_list())
        return () if environ["REQUEST_METHOD"] == "HEAD" else self.iter_encoded()


# One encoder for all: `json.dumps` makes a new one at every call that has settings of its own.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_HEADERS = (
    ("Content-Type", "application/json"),
    ("Vary", "Accept-Language"),
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", NOTHING_AT_ALL),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
)


def retry_after(seconds: float) -> dict[str, str]:
    """Return a `Retry-After` header: whole seconds, at least one."""
    return {"Retry-After": str(max(1, math.ceil(seconds)))}


def jittered_retry_after() -> dict[str, str]:
    """Return one to five seconds at random, so that refused clients do not all come back at once."""
    return {"Retry-After": str(random.randint(1, 5))}


def rate_limit_headers(status: RateLimitStatus) -> dict[str, str]:
    """Return the `RateLimit-*` headers of the IETF's draft (draft-ietf-httpapi-ratelimit-headers-07)."""
    return {
        "RateLimit-Limit": str(status.limit),
        "RateLimit-Remaining": str(status.remaining),
        "RateLimit-Reset": str(status.reset_s),
    }


def timestamp(moment: datetime) -> str:
    """Return a moment as RFC 3339 in UTC."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
