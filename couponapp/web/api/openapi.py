"""The OpenAPI 3.1 document. Written by hand; tests hold it against the URL map and the answers."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify

from couponapp import __version__
from couponapp.web.inputs import DEFAULT_PAGE, MAX_ID, MAX_PAGE
from couponapp.web.responses import RESPONSES

openapi = Blueprint("openapi", __name__)

Schema = dict[str, Any]


@openapi.get("/openapi.json")
def show() -> Response:
    """Return the document."""
    return jsonify(document())


def document() -> Schema:
    """Describe what the API takes and returns."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "couponapp",
            "version": __version__,
            "description": "First-come-first-served coupon events. Every answer has one shape; `code` is stable.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            "/api/v1/coupons": {"get": _list_coupons()},
            "/api/v1/coupons/{couponId}": {"get": _get_coupon()},
            "/api/v1/coupons/{couponId}/issue": {"post": _issue()},
            "/api/v1/me/coupons": {"get": _my_coupons()},
            "/api/v1/me/coupons/{issuanceId}": {"get": _my_coupon()},
            "/livez": {"get": _operation("livez", "The process is up", {"OK": _NOTHING}, public=True, plain=True)},
            "/readyz": {"get": _readyz()},
            "/metrics": {"get": _document_of("metrics", "Prometheus metrics", "text/plain")},
            "/openapi.json": {"get": _document_of("openapi", "This document", "application/json")},
        },
        "components": {
            "schemas": {"Coupon": _COUPON, "Issuance": _ISSUANCE},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }


_NOTHING: Schema = {"type": "null"}
_RETRY_AFTER: Schema = {"Retry-After": {"schema": {"type": "integer"}}}
_TIME: Schema = {"type": "string", "format": "date-time"}
_ID: Schema = {"type": "integer", "format": "int64", "minimum": 1, "maximum": MAX_ID}
_COUNT: Schema = {"type": "integer", "minimum": 0}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "required": list(properties), "properties": properties, "additionalProperties": False}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_COUPON = _object(
    couponId=_ID,
    name={"type": "string"},
    status={"enum": ["SCHEDULED", "OPEN", "SOLD_OUT", "PAUSED", "CLOSED"]},
    total=_COUNT,
    remaining={**_COUNT, "description": "At most one second old while PostgreSQL answers; see asOf."},
    opensAt=_TIME,
    closesAt=_TIME,
    validDays={"type": "integer", "minimum": 1},
    asOf={**_TIME, "description": "When the database showed this, by its own clock."},
    stale={"type": "boolean", "description": "Older than a second: PostgreSQL does not answer at the moment."},
)

_ISSUANCE = _object(
    issuanceId=_ID,
    couponId=_ID,
    couponName={"type": "string"},
    code={"type": "string", "pattern": "^[2-9A-HJKMNP-Z]{4}(-[2-9A-HJKMNP-Z]{4}){4}$"},
    issuedAt=_TIME,
    expiresAt=_TIME,
)


def _path_id(name: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": _ID}


def _answer_body(code: str, data: Schema) -> Schema:
    return _object(
        success={"const": RESPONSES[code].status < 400}, code={"const": code}, message={"type": "string"}, data=data
    )


def _operation(
    operation_id: str,
    summary: str,
    answers: dict[str, Schema],
    *,
    public: bool = False,
    plain: bool = False,
    headers: dict[int, Schema] | None = None,
    **more: Any,
) -> Schema:
    """One operation: its answers by code, grouped by HTTP status, and what any route may answer."""
    everywhere = {} if plain else {"INVALID_REQUEST": _NOTHING, "SERVICE_UNAVAILABLE": _NOTHING}
    if not public:
        everywhere["UNAUTHENTICATED"] = _NOTHING
    by_status: dict[int, list[Schema]] = {}
    for code, data in {**answers, **everywhere}.items():
        by_status.setdefault(RESPONSES[code].status, []).append(_answer_body(code, data))
    all_headers = {
        401: {"WWW-Authenticate": {"schema": {"type": "string"}}},
        503: {"Retry-After": {"schema": {"type": "integer"}}},
        **(headers or {}),
    }
    return {
        "operationId": operation_id,
        "summary": summary,
        "security": [] if public else [{"bearer": []}],
        **more,
        "responses": {
            str(status): {
                "description": " · ".join(body["properties"]["code"]["const"] for body in bodies),
                "headers": all_headers.get(status, {}),
                "content": {"application/json": {"schema": bodies[0] if len(bodies) == 1 else {"oneOf": bodies}}},
            }
            for status, bodies in sorted(by_status.items())
        },
    }


def _document_of(operation_id: str, summary: str, content_type: str) -> Schema:
    return {
        "operationId": operation_id,
        "summary": summary,
        "security": [],
        "responses": {"200": {"description": summary, "content": {content_type: {}}}},
    }


def _list_coupons() -> Schema:
    data = _object(coupons={"type": "array", "items": _ref("Coupon")})
    return _operation("listCoupons", "Coupons that run or are to come", {"OK": data}, public=True)


def _get_coupon() -> Schema:
    answers = {"OK": _ref("Coupon"), "COUPON_NOT_FOUND": _NOTHING}
    return _operation("getCoupon", "One coupon", answers, public=True, parameters=[_path_id("couponId")])


def _issue() -> Schema:
    key = {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": "The same key again, by the same user on the same coupon, gets the first 201 again.",
        "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
    }
    answers = {
        "ISSUED": _ref("Issuance"),
        "ALREADY_ISSUED": _ref("Issuance"),
        "SOLD_OUT": _NOTHING,
        "NOT_OPEN": _object(opensAt=_TIME),
        "CLOSED": _NOTHING,
        "PAUSED": _NOTHING,
        "COUPON_NOT_FOUND": _NOTHING,
        "IDEMPOTENCY_KEY_REUSED": _NOTHING,
        "TOO_MANY_REQUESTS": _NOTHING,
        "PAYLOAD_TOO_LARGE": _NOTHING,
        "UNSUPPORTED_MEDIA_TYPE": _NOTHING,
    }
    headers: dict[int, Schema] = {
        201: {
            "Location": {"schema": {"type": "string"}},
            "Idempotency-Replayed": {"schema": {"const": "true"}, "description": "The answer of an earlier request."},
        },
        409: _RETRY_AFTER,
        429: _RETRY_AFTER,
    }
    return _operation(
        "issueCoupon",
        "Issue one coupon to the caller",
        answers,
        headers=headers,
        parameters=[_path_id("couponId"), key],
        requestBody={"required": False, "content": {"application/json": {"schema": {"type": "object"}}}},
    )


def _my_coupons() -> Schema:
    parameters = [
        {
            "name": "limit",
            "in": "query",
            "schema": {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": DEFAULT_PAGE},
        },
        {
            "name": "cursor",
            "in": "query",
            "description": "An earlier answer's nextCursor.",
            "schema": {"type": "string"},
        },
    ]
    data = _object(issuances={"type": "array", "items": _ref("Issuance")}, nextCursor={"type": ["string", "null"]})
    answers = {"OK": data, "TOO_MANY_REQUESTS": _NOTHING}
    return _operation(
        "listMyCoupons",
        "The caller's issuances, newest first",
        answers,
        headers={429: _RETRY_AFTER},
        parameters=parameters,
    )


def _my_coupon() -> Schema:
    answers = {"OK": _ref("Issuance"), "NOT_FOUND": _NOTHING, "TOO_MANY_REQUESTS": _NOTHING}
    return _operation(
        "getMyCoupon",
        "One of the caller's issuances",
        answers,
        headers={429: _RETRY_AFTER},
        parameters=[_path_id("issuanceId")],
    )


def _readyz() -> Schema:
    state = {"enum": ["up", "down"]}
    data = _object(postgresql=state, redis=state)
    answers = {"READY": data, "NOT_READY": data}
    return _operation("readyz", "May take traffic", answers, public=True, plain=True)
