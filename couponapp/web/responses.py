"""Every JSON answer: one shape, and one table from code to HTTP status and words."""

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

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

LANGUAGES = ("ko", "en")

# Only our own files; Pico's icons are data: images in its style sheet. No inline script or style.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
# What no page shows needs no more than this.
NOTHING_AT_ALL = "default-src 'none'; frame-ancestors 'none'"
SECURITY_HEADERS = (
    ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "same-origin"),
    ("X-Frame-Options", "DENY"),
)


class Words(NamedTuple):
    """What a code means over HTTP."""

    status: int
    ko: str
    en: str


# The incident report's words for 429 and 503 are part of the contract.
RESPONSES: Mapping[str, Words] = {
    "OK": Words(200, "정상적으로 처리되었습니다.", "OK."),
    "ISSUED": Words(201, "쿠폰이 발급되었습니다.", "The coupon has been issued to you."),
    "ALREADY_ISSUED": Words(409, "이미 발급받은 쿠폰입니다.", "You already hold this coupon."),
    "SOLD_OUT": Words(409, "쿠폰이 모두 소진되었습니다.", "The coupon is sold out."),
    "NOT_OPEN": Words(409, "아직 쿠폰 발급이 시작되지 않았습니다.", "The coupon has not opened yet."),
    "CLOSED": Words(409, "쿠폰 발급이 종료되었습니다.", "The coupon is closed."),
    "PAUSED": Words(409, "쿠폰 발급이 일시 중지되었습니다.", "The coupon is paused."),
    "COUPON_NOT_FOUND": Words(404, "존재하지 않는 쿠폰입니다.", "There is no such coupon."),
    "IDEMPOTENCY_KEY_REUSED": Words(
        422,
        "이미 다른 쿠폰에 사용된 Idempotency-Key입니다.",
        "This Idempotency-Key was used for another coupon.",
    ),
    "TOO_MANY_REQUESTS": Words(
        429, "요청이 너무 많습니다. 잠시 후 다시 시도해주세요.", "Too many requests. Please try again shortly."
    ),
    "SERVICE_UNAVAILABLE": Words(
        503,
        "서비스 장애 발생. 잠시 후 다시 시도해주세요.",
        "The service is temporarily unavailable. Please try again shortly.",
    ),
    "INVALID_REQUEST": Words(400, "잘못된 요청입니다.", "The request is not valid."),
    "UNAUTHENTICATED": Words(401, "로그인이 필요합니다.", "A valid bearer token is needed."),
    "FORBIDDEN": Words(403, "권한이 없습니다.", "You may not do this."),
    "NOT_FOUND": Words(404, "찾을 수 없습니다.", "There is nothing here."),
    "METHOD_NOT_ALLOWED": Words(405, "허용되지 않는 메서드입니다.", "This method is not allowed here."),
    "REQUEST_TIMEOUT": Words(408, "요청이 제시간에 도착하지 않았습니다.", "The request did not arrive in time."),
    "PAYLOAD_TOO_LARGE": Words(413, "요청 본문이 너무 큽니다.", "The request body is too large."),
    "URI_TOO_LONG": Words(414, "요청 주소가 너무 깁니다.", "The address is too long."),
    "UNSUPPORTED_MEDIA_TYPE": Words(415, "지원하지 않는 형식입니다.", "This content type is not supported."),
    "INTERNAL_ERROR": Words(500, "서버 오류가 발생했습니다.", "Something went wrong on our side."),
    "READY": Words(200, "요청을 받을 수 있습니다.", "Ready for traffic."),
    "NOT_READY": Words(503, "요청을 받을 수 없습니다.", "Not ready for traffic."),
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
    """`ko`, or `en` where the request's Accept-Language prefers it."""
    return _preferred(request.environ.get("HTTP_ACCEPT_LANGUAGE", ""))


@lru_cache(maxsize=256)
def _preferred(accept_language: str) -> str:
    return parse_accept_header(accept_language, LanguageAccept).best_match(LANGUAGES) or "ko"


def message(code: str) -> str:
    """A code's words in the request's language."""
    words = RESPONSES[code]
    return words.en if language() == "en" else words.ko


def answer(
    code: str,
    data: Any = None,
    *,
    detail: str = "",
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """One JSON answer in the contract's shape.

    Args:
        code: a key of `RESPONSES`.
        data: what JSON can hold, or None.
        detail: what exactly is wrong, appended to the message.
        status: where it is not the code's own.
        headers: more headers.
    """
    asked_for = language()
    if data is None and not detail:
        body, fixed = _without_data(code, asked_for)
    else:
        body, fixed = _with_data(code, asked_for, data, detail)
    return JsonResponse(body, status or RESPONSES[code].status, [*fixed, *headers.items()] if headers else fixed[:])


def _with_data(code: str, asked_for: str, data: Any, detail: str) -> tuple[bytes, list[tuple[str, str]]]:
    """The body, and the headers that it always has."""
    words = RESPONSES[code]
    text = (words.en if asked_for == "en" else words.ko) + (f" ({detail})" if detail else "")
    body = _encode({"success": words.status < 400, "code": code, "message": text, "data": data}).encode()
    return body, [*_HEADERS, ("Content-Language", asked_for), ("Content-Length", str(len(body)))]


@lru_cache(maxsize=len(RESPONSES) * len(LANGUAGES))
def _without_data(code: str, asked_for: str) -> tuple[bytes, list[tuple[str, str]]]:
    """What most of a crowd is told, word for word the same each time. The list is not to be changed."""
    return _with_data(code, asked_for, None, "")


class JsonResponse(Response):
    """A JSON answer that is complete from the start: nothing to look through and copy when it is sent."""

    def __init__(self, body: bytes, status: int, headers: list[tuple[str, str]]) -> None:
        """Take everything as it is.

        Args:
            body: the encoded JSON.
            status: of HTTP.
            headers: all of them, with the body's length; the list becomes the answer's own.
        """
        # `Headers(headers)` would search all for each: as long as the other work on a short answer.
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
    """A `Retry-After` header: whole seconds, at least one."""
    return {"Retry-After": str(max(1, math.ceil(seconds)))}


def jittered_retry_after() -> dict[str, str]:
    """One to five seconds by chance, so that the refused do not all come back at once."""
    return {"Retry-After": str(random.randint(1, 5))}


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
