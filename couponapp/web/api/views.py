"""The REST API."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, request

from couponapp.errors import CouponNotFound, NotFound
from couponapp.issuing import issuances
from couponapp.issuing.catalogue import Coupon
from couponapp.issuing.issuances import Issuance
from couponapp.issuing.statement import IssueResult, Outcome
from couponapp.web import held_coupons, inputs
from couponapp.web.current import services
from couponapp.web.identity import bearer_user
from couponapp.web.limits import limited, per_bearer
from couponapp.web.responses import json_response, rate_limit_headers, retry_after, timestamp

API_PREFIX = "/api/v1"
api = Blueprint("api", __name__, url_prefix=API_PREFIX)


@api.post("/coupons/<coupon_id>/issue")
def issue_coupon(coupon_id: str) -> Response:
    """Issue one coupon to the caller."""
    environ = request.environ  # Flask's proxies cost more than what they stand for
    user_id = bearer_user(environ)
    inputs.check_body(environ)
    key = inputs.idempotency_key(environ)
    number = inputs.parse_coupon_id(coupon_id)
    return issue_response(services().issuing.issue(number, user_id, key, environ.get("REMOTE_ADDR", "")))


def issue_response(result: IssueResult) -> Response:
    """Return one result as HTTP."""
    data = issuance_json(result.issuance) if result.issuance else None
    headers = rate_limit_headers(result.rate_limit) if result.rate_limit else {}
    if result.outcome in (Outcome.ISSUED, Outcome.REPLAYED):
        assert result.issuance is not None
        headers["Location"] = f"{API_PREFIX}/me/coupons/{result.issuance.id}"
        if result.outcome is Outcome.REPLAYED:
            headers["Idempotency-Replayed"] = "true"
        return json_response("ISSUED", data, headers=headers)
    if result.outcome is Outcome.NOT_OPEN:
        assert result.opens_at is not None
        headers |= retry_after(result.retry_after_s)
        return json_response("NOT_OPEN", {"opensAt": timestamp(result.opens_at)}, headers=headers)
    return json_response(result.outcome.value, data, headers=headers)


@api.get("/coupons")
def list_coupons() -> Response:
    """Return the coupons that run or are to come."""
    return json_response("OK", {"coupons": [coupon_json(coupon) for coupon in services().catalogue.current()]})


@api.get("/coupons/<coupon_id>")
def get_coupon(coupon_id: str) -> Response:
    """Return one coupon."""
    coupon = services().catalogue.coupon(inputs.parse_coupon_id(coupon_id))
    if coupon is None:
        raise CouponNotFound()
    return json_response("OK", coupon_json(coupon))


@api.get("/me/coupons")
@limited("limit_my_coupons", per_bearer)
def my_coupons() -> Response:
    """Return the caller's issuances, newest first."""
    page, next_cursor = held_coupons.requested_page(bearer_user(request.environ))
    return json_response("OK", {"issuances": [issuance_json(one) for one in page], "nextCursor": next_cursor})


@api.get("/me/coupons/<issuance_id>")
@limited("limit_my_coupons", per_bearer)
def my_coupon(issuance_id: str) -> Response:
    """Return one of the caller's issuances; another user's is not found."""
    user_id = bearer_user(request.environ)
    services().overload.check()
    number = inputs.parse_id(issuance_id)
    found = issuances.one_of_holder(services().read_pool, user_id, number) if number else None
    if found is None:
        raise NotFound()
    return json_response("OK", issuance_json(found))


def coupon_json(coupon: Coupon) -> dict[str, Any]:
    """Return a coupon as the API shows it."""
    mono_s = services().catalogue.mono_s()
    return {
        "couponId": coupon.id,
        "name": coupon.name,
        "status": coupon.status(mono_s).value,
        "total": coupon.total,
        "remaining": coupon.remaining,
        "opensAt": timestamp(coupon.opens_at),
        "closesAt": timestamp(coupon.closes_at),
        "validDays": coupon.valid_days,
        "asOf": timestamp(coupon.read_at),
        "stale": coupon.is_stale(mono_s),
    }


def issuance_json(issuance: Issuance) -> dict[str, Any]:
    """Return an issuance as the API shows it to its holder."""
    return {
        "issuanceId": issuance.id,
        "couponId": issuance.coupon_id,
        "couponName": issuance.coupon_name,
        "code": issuance.code,
        "issuedAt": timestamp(issuance.issued_at),
        "expiresAt": timestamp(issuance.expires_at),
    }
