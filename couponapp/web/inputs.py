"""What a client sends, checked before it is used."""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any
from wsgiref.types import WSGIEnvironment

from flask import request
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from couponapp.errors import CouponNotFound, InvalidRequest

MAX_ID = 2**63 - 1  # PostgreSQL's bigint
MAX_BODY_BYTES = 16 * 1024
MAX_PAGE = 100
DEFAULT_PAGE = 20
# What JSON can spell and PostgreSQL cannot store: NUL and lone surrogates.
_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")


def parse_id(text: str) -> int | None:
    """Read an id from a path or a cursor; None where no row can have it.

    ASCII digits only: `int()` alone would take fullwidth digits and 400 of them.
    """
    if not re.fullmatch(r"[1-9][0-9]{0,18}", text, re.ASCII):
        return None
    number = int(text)
    return number if number <= MAX_ID else None


def parse_coupon_id(text: str) -> int:
    """Return the id of a coupon from a path.

    Raises:
        CouponNotFound: no coupon can have it.
    """
    number = parse_id(text)
    if number is None:
        raise CouponNotFound()
    return number


def check_body(environ: WSGIEnvironment) -> None:
    """Check the body of an issue request: empty, or one JSON object, whose members are ignored.

    Raises:
        InvalidRequest: it is neither.
        werkzeug.exceptions.RequestEntityTooLarge: more than 16 KiB.
        werkzeug.exceptions.UnsupportedMediaType: it is not JSON.
    """
    if environ.get("CONTENT_LENGTH", "0") in ("", "0") and "HTTP_TRANSFER_ENCODING" not in environ:
        return  # nearly all clients send nothing
    raw = request.get_data(cache=False)
    if len(raw) > MAX_BODY_BYTES:
        raise RequestEntityTooLarge()
    if not raw:
        return
    if request.mimetype != "application/json":
        raise UnsupportedMediaType()
    parse_object(raw)


def parse_object(raw: bytes) -> dict[str, Any]:
    """Read a JSON object by RFC 8259, with unique member names and text that PostgreSQL can store.

    Raises:
        InvalidRequest: says what is wrong.
    """
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise InvalidRequest("the body is not UTF-8") from error
    except RecursionError as error:
        raise InvalidRequest("the body is nested too deeply") from error
    except ValueError as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidRequest("the body must be a JSON object")
    _check_text(value)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member name appears twice")
    return members


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")


def _check_text(value: Any) -> None:
    # A stack of its own: the body's depth must not become Python's.
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str) and _UNSTORABLE.search(item):
            raise InvalidRequest("the body holds text with NUL or a lone surrogate")
        if isinstance(item, dict):
            pending.extend([*item.keys(), *item.values()])
        elif isinstance(item, list):
            pending.extend(item)


def idempotency_key(environ: WSGIEnvironment) -> str | None:
    """Read the `Idempotency-Key` header; None where there is none.

    Raises:
        InvalidRequest: it is not 1 to 255 visible ASCII characters.
    """
    key: str | None = environ.get("HTTP_IDEMPOTENCY_KEY")
    if key is not None and not re.fullmatch(r"[\x21-\x7e]{1,255}", key):
        raise InvalidRequest("Idempotency-Key: 1 to 255 visible ASCII characters")
    return key


def page() -> tuple[int, int | None]:
    """Read `?limit=` and `?cursor=` of a list: the limit, and the id before which it goes on.

    Raises:
        InvalidRequest: names the parameter.
    """
    raw_limit = request.args.get("limit", str(DEFAULT_PAGE))
    if not re.fullmatch(r"[0-9]{1,3}", raw_limit, re.ASCII) or not 1 <= int(raw_limit) <= MAX_PAGE:
        raise InvalidRequest(f"limit: 1 to {MAX_PAGE}")
    cursor = request.args.get("cursor")
    if cursor is None:
        return int(raw_limit), None
    before_id = _decode_cursor(cursor)
    if before_id is None:
        raise InvalidRequest("cursor: take it from an earlier answer's nextCursor")
    return int(raw_limit), before_id


def encode_cursor(before_id: int) -> str:
    """Return a cursor that goes on before this id. Opaque, so that it may hold more later."""
    return base64.urlsafe_b64encode(f"i{before_id}".encode()).decode().rstrip("=")


def _decode_cursor(cursor: str) -> int | None:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,40}", cursor):
        return None
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return parse_id(text[1:]) if text.startswith("i") else None
