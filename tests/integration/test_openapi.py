"""The OpenAPI document against the URL map and against what the service really answers."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import hypothesis
import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.openapi.checks import JsonSchemaError
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from couponapp import __version__
from couponapp.config import settings
from couponapp.local.postgres import free_port
from couponapp.planning import coupons
from couponapp.storage.pool import Pool
from couponapp.web.api.openapi import document
from couponapp.web.inputs import DEFAULT_PAGE, MAX_BODY_BYTES, MAX_ID, MAX_PAGE
from tests.support.servers import service_environ
from tests.support.shape import told

NewCoupon = Callable[..., int]
MakeApp = Callable[..., Flask]
Bearer = Callable[[str], dict[str, str]]
Document = dict[str, Any]

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
OUTSIDE_THE_API = {"/livez", "/readyz", "/metrics", "/openapi.json"}
# The same inputs in every run, and few enough for every run.
# Its generator uses `random` inside, which is none of our business.
pytestmark = pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning")
BOUNDED = hypothesis.settings(
    max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


def schema_of(app: Flask, described: Document) -> Any:
    schema = schemathesis.openapi.from_dict(described)
    schema.app = app
    return schema


def hold_against(
    app: Flask, described: Document, headers: dict[str, str], mode: GenerationMode = GenerationMode.POSITIVE
) -> set[tuple[str, int]]:
    """Ask every operation with generated inputs and check each answer; returns what was answered."""
    seen: set[tuple[str, int]] = set()
    for result in schema_of(app, described).get_all_operations():
        operation = result.ok()

        @BOUNDED
        @hypothesis.given(operation.as_strategy(generation_mode=mode))
        def ask(case: Case[Any]) -> None:
            response = case.call_and_validate(headers=headers, checks=CHECKS)
            seen.add((case.operation.label, response.status_code))

        try:
            ask()
        except hypothesis.errors.Unsatisfiable:
            assert mode is GenerationMode.NEGATIVE  # an operation without inputs has no wrong ones
    return seen


def test_the_document_lists_exactly_the_routes_that_programs_use(app: Flask) -> None:
    described = {(method.upper(), path) for path, operations in document()["paths"].items() for method in operations}
    routed = {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", lambda found: "{" + camel_case(found[1]) + "}", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.rule.startswith("/api/") or rule.rule in OUTSIDE_THE_API
    }
    assert described == routed


def camel_case(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)


def test_the_service_shows_the_document(app: Flask) -> None:
    response = app.test_client().get("/openapi.json")
    assert response.mimetype == "application/json"
    assert response.json == document()


def test_the_document_tells_the_version_and_the_limits_of_the_inputs() -> None:
    paths = document()["paths"]
    (coupon_id,) = paths["/api/v1/coupons/{couponId}"]["get"]["parameters"]
    limit, _ = paths["/api/v1/me/coupons"]["get"]["parameters"]
    assert document()["info"]["version"] == __version__
    assert coupon_id["schema"]["maximum"] == MAX_ID
    assert (limit["schema"]["maximum"], limit["schema"]["default"]) == (MAX_PAGE, DEFAULT_PAGE)


def test_every_operation_has_an_id_of_its_own(app: Flask) -> None:
    ids = [operation["operationId"] for path in document()["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids)) == len(document()["paths"])


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_answers_to_generated_requests_conform_to_the_document(
    app: Flask, bearer: Bearer, new_coupon: NewCoupon, mode: GenerationMode
) -> None:
    new_coupon()
    new_coupon(opens_in_s=100)
    new_coupon(total=0)
    seen = hold_against(app, document(), bearer("kim"), mode)
    assert {label.split()[0] for label, _ in seen} == {"GET", "POST"}
    assert ("POST /api/v1/coupons/{couponId}/issue", 404) in seen


# Documents that are wrong in one place


def without_a_property() -> Document:
    described = deepcopy(document())
    del described["components"]["schemas"]["Coupon"]["properties"]["remaining"]
    described["components"]["schemas"]["Coupon"]["required"].remove("remaining")
    return described


def with_another_status() -> Document:
    described = deepcopy(document())
    responses = described["paths"]["/api/v1/coupons"]["get"]["responses"]
    responses["202"] = responses.pop("200")
    return described


def with_another_type() -> Document:
    described = deepcopy(document())
    described["paths"]["/metrics"]["get"]["responses"]["200"]["content"] = {"application/json": {}}
    return described


def with_another_code() -> Document:
    described = deepcopy(document())
    responses = described["paths"]["/livez"]["get"]["responses"]
    responses["200"]["content"]["application/json"]["schema"]["properties"]["code"] = {"const": "FINE"}
    return described


def with_a_header_that_is_missing() -> Document:
    described = deepcopy(document())
    header = {"X-Missing": {"required": True, "schema": {"type": "string"}}}
    described["paths"]["/livez"]["get"]["responses"]["200"]["headers"] = header
    return described


@pytest.mark.parametrize(
    "wrong",
    [without_a_property, with_another_status, with_another_type, with_another_code, with_a_header_that_is_missing],
)
def test_a_document_that_is_wrong_in_one_place_is_caught(
    app: Flask, bearer: Bearer, new_coupon: NewCoupon, wrong: Callable[[], Document]
) -> None:
    new_coupon()
    with pytest.raises((FailureGroup, AssertionError)):
        hold_against(app, wrong(), bearer("kim"))


# Every answer that the document names, provoked


def named(described: Document) -> set[tuple[str, int, str]]:
    """Operation, status and code of every JSON answer in the document."""
    found = set()
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            for status, answer in operation["responses"].items():
                schema = answer["content"].get("application/json", {}).get("schema", {})
                bodies = schema.get("oneOf", [schema] if schema else [])
                codes = [body["properties"]["code"]["const"] for body in bodies]
                found |= {(f"{method.upper()} {path}", int(status), code) for code in codes}
    return found


Request = tuple[Flask, str, dict[str, str], dict[str, str], bytes]


@pytest.fixture
def provoking(
    app: Flask, make_app: MakeApp, environ: dict[str, str], bearer: Bearer, new_coupon: NewCoupon, pool: Pool
) -> list[Request]:
    """Requests that together meet every answer: the application, operation, parameters, headers, body."""
    limited = make_app(settings.load({**environ, "COUPON_LIMIT_GLOBAL": "1/day", "COUPON_LIMIT_MY_COUPONS": "1/day"}))
    nowhere = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"
    broken = make_app(settings.load(service_environ(nowhere, environ["REDIS_URL"], COUPON_DEADLINE_MS="100")))
    kim, lee, foreign = bearer("kim"), bearer("lee"), {**bearer("kim"), "Host": "evil.example"}
    keyed, as_json = {**kim, "Idempotency-Key": "key-1"}, {**kim, "Content-Type": "application/json"}
    fresh, other, closed, paused = new_coupon(), new_coupon(), new_coupon(), new_coupon()
    coupons.close(pool, closed)
    coupons.pause(pool, paused)
    everywhere = [
        "GET /api/v1/coupons",
        "GET /api/v1/coupons/{couponId}",
        "POST /api/v1/coupons/{couponId}/issue",
        "GET /api/v1/me/coupons",
        "GET /api/v1/me/coupons/{issuanceId}",
    ]
    issue = everywhere[2]

    def of(coupon_id: int) -> dict[str, str]:
        return {"couponId": str(coupon_id), "issuanceId": "1"}

    return [
        (app, issue, of(fresh), keyed, b""),  # ISSUED
        (app, issue, of(fresh), keyed, b""),  # ISSUED, replayed
        (app, issue, of(other), keyed, b""),  # IDEMPOTENCY_KEY_REUSED
        (app, issue, of(fresh), kim, b""),  # ALREADY_ISSUED
        *((app, issue, of(number), kim, b"") for number in (closed, paused, 4711)),
        (app, issue, of(new_coupon(total=0)), kim, b""),
        (app, issue, of(new_coupon(opens_in_s=100)), kim, b""),
        (app, issue, of(fresh), as_json, b" " * (MAX_BODY_BYTES + 1)),
        (app, issue, of(fresh), kim, b"{}"),  # UNSUPPORTED_MEDIA_TYPE
        *((limited, operation, of(fresh), kim, b"") for operation in everywhere[2:] for _ in range(2)),
        *((app, operation, of(fresh), kim, b"") for operation in everywhere),
        *((app, operation, of(4711), lee, b"") for operation in everywhere),
        *((app, operation, of(fresh), foreign, b"") for operation in everywhere),
        *((app, operation, of(fresh), {}, b"") for operation in everywhere),
        *((broken, operation, of(fresh), kim, b"") for operation in everywhere),
        (app, "GET /livez", {}, {}, b""),
        (app, "GET /readyz", {}, {}, b""),
        (broken, "GET /readyz", {}, {}, b""),
    ]


def conforming(described: Document, requests: list[Request]) -> set[tuple[str, int, str]]:
    """Send the requests and hold the answers against the document; returns what was answered."""
    schema, seen = schema_of(requests[0][0], described), set()
    for app, operation, parameters, headers, body in requests:
        method, path = operation.split(" ", 1)
        response = app.test_client().open(path.format(**parameters), method=method, headers=headers, data=body)
        schema[path][method].validate_response(response)
        seen.add((operation, *told(response)))
    return seen


def test_every_answer_that_the_document_names_is_given_and_conforms(provoking: list[Request]) -> None:
    assert conforming(document(), provoking) == named(document())


def test_an_answer_that_the_document_forgets_is_caught(provoking: list[Request]) -> None:
    described = deepcopy(document())
    conflict = described["paths"]["/api/v1/coupons/{couponId}/issue"]["post"]["responses"]["409"]
    bodies = conflict["content"]["application/json"]["schema"]["oneOf"]
    bodies[:] = [body for body in bodies if body["properties"]["code"]["const"] != "PAUSED"]
    with pytest.raises(JsonSchemaError, match="PAUSED"):
        conforming(described, provoking)
