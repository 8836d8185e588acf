"""The OpenAPI 3.1 document. `openapi.json` is written by hand; tests hold it against the URL map and the answers.

The file lists an operation's answers in `x-answers`: for each code the schema of its `data`. Each becomes a
response in the one shape, under the code's HTTP status, with the headers that `x-headers` has for it.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, jsonify

from couponapp import __version__
from couponapp.web.responses import RESPONSES

openapi = Blueprint("openapi", __name__)

Schema = dict[str, Any]

_FILE = Path(__file__).with_name("openapi.json")


@openapi.get("/openapi.json")
def show() -> Response:
    """Return the document."""
    return jsonify(document())


@cache
def document() -> Schema:
    """Describe what the API takes and returns."""
    described: Schema = json.loads(_FILE.read_text(encoding="utf-8"))
    described["info"]["version"] = __version__
    headers = described.pop("x-headers")
    for operations in described["paths"].values():
        for operation in operations.values():
            if answers := operation.pop("x-answers", None):
                operation["responses"] = _responses(answers, headers)
    return described


def _responses(answers: Schema, headers: Schema) -> Schema:
    """Group an operation's answers by HTTP status."""
    by_status: dict[str, list[str]] = {}
    for code in answers:
        by_status.setdefault(str(RESPONSES[code].status), []).append(code)
    responses = {}
    for status, codes in by_status.items():
        bodies = [_body(code, answers[code]) for code in codes]
        responses[status] = {
            "description": " · ".join(codes),
            "headers": headers.get(status, {}),
            "content": {"application/json": {"schema": bodies[0] if len(bodies) == 1 else {"oneOf": bodies}}},
        }
    return responses


def _body(code: str, data: Schema) -> Schema:
    success = RESPONSES[code].status < 400
    members = {"success": {"const": success}, "code": {"const": code}, "message": {"type": "string"}, "data": data}
    return {"type": "object", "required": list(members), "properties": members, "additionalProperties": False}
