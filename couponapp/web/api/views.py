"""The REST API."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, request

from couponapp.errors import CouponNotFound, NotFound
from couponapp.issuing import issuances
from couponapp.issuing.catalogue import Coupon
from couponapp.issuing.issuances import Issuance
from couponapp.issuing.statement import IssueResult, Outcome
from couponapp.web import holdings, inputs
from couponapp.web.attempt import attempt_to_issue
from couponapp.web.parts import parts
from couponapp.web.responses import answer, retry_after, timestamp

API_PREFIX = "/api/v1"
api = Blueprint("api", __name__, url_prefix=API_PREFIX)


@api.post("/coupons/<coupon_id>/issue")
def issue_coupon(coupon_id: str) -> Response:
    """Issue one coupon to the caller."""
    service, environ = parts(), request.environ  # asked for once: Flask's proxies cost more than what they stand for
    user_id = service.identity.of_bearer(environ)
    inputs.check_body(environ)
    key = inputs.idempotency_key(environ)
    return answer_attempt(
        attempt_to_issue(service, coupon_id, user_id, key=key, address=environ.get("REMOTE_ADDR", ""))
    )


def answer_attempt(attempt: IssueResult) -> Response:
    """One outcome as HTTP."""
    data = issuance_json(attempt.issuance) if attempt.issuance else None
    if attempt.outcome in (Outcome.ISSUED, Outcome.REPLAYED):
        assert attempt.issuance is not None
        headers = {"Location": f"{API_PREFIX}/me/coupons/{attempt.issuance.id}"}
        if attempt.outcome is Outcome.REPLAYED:
            headers["Idempotency-Replayed"] = "true"
        return answer("ISSUED", data, headers=headers)
    if attempt.outcome is Outcome.NOT_OPEN:
        assert attempt.opens_at is not None
        return answer("NOT_OPEN", {"opensAt": timestamp(attempt.opens_at)}, headers=retry_after(attempt.retry_after_s))
    return answer(attempt.outcome.value, data)


@api.get("/coupons")
def list_coupons() -> Response:
    """Coupons that run or are to come."""
    return answer("OK", {"coupons": [coupon_json(coupon) for coupon in parts().catalogue.current()]})


@api.get("/coupons/<coupon_id>")
def get_coupon(coupon_id: str) -> Response:
    """One coupon."""
    number = inputs.parse_id(coupon_id)
    coupon = parts().catalogue.coupon(number) if number else None
    if coupon is None:
        raise CouponNotFound()
    return answer("OK", coupon_json(coupon))


@api.get("/me/coupons")
def my_coupons() -> Response:
    """The caller's issuances, newest first."""
    user_id = parts().identity.of_bearer(request.environ)
    parts().backlog.check()
    page, next_cursor = holdings.asked_page(user_id)
    return answer("OK", {"issuances": [issuance_json(one) for one in page], "nextCursor": next_cursor})


@api.get("/me/coupons/<issuance_id>")
def my_coupon(issuance_id: str) -> Response:
    """One of the caller's issuances; somebody else's is not found."""
    user_id = parts().identity.of_bearer(request.environ)
    parts().backlog.check()
    number = inputs.parse_id(issuance_id)
    found = issuances.one_of_holder(parts().read_pool, user_id, number) if number else None
    if found is None:
        raise NotFound()
    return answer("OK", issuance_json(found))


def coupon_json(coupon: Coupon) -> dict[str, Any]:
    """A coupon as the API shows it."""
    mono_s = parts().catalogue.mono_s()
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
    """An issuance as the API shows it to its holder."""
    return {
        "issuanceId": issuance.id,
        "couponId": issuance.coupon_id,
        "couponName": issuance.coupon_name,
        "code": issuance.code,
        "issuedAt": timestamp(issuance.issued_at),
        "expiresAt": timestamp(issuance.expires_at),
    }
