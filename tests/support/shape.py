"""The one shape of every JSON answer, as the tests hold answers against it."""

from __future__ import annotations

import json
from typing import Any

from werkzeug.test import TestResponse

from tests.support.servers import Answer

MEMBERS = ["success", "code", "message", "data"]


def shape(response: TestResponse | Answer) -> dict[str, Any]:
    """The answer's members; fails where it has not exactly the four, or contradicts its own status."""
    status = response.status_code if isinstance(response, TestResponse) else response.status
    body = response.data if isinstance(response, TestResponse) else response.body
    kind = response.headers.get("Content-Type", "none")
    assert kind == "application/json", f"{status} {kind} {body[:200]!r}"
    answer = json.loads(body)
    assert isinstance(answer, dict), answer
    assert list(answer) == MEMBERS, answer
    assert answer["success"] is (status < 400), answer
    assert answer["code"], answer
    assert answer["message"], answer
    return answer


def told(response: TestResponse | Answer) -> tuple[int, str]:
    """Status and code of an answer in the one shape."""
    status = response.status_code if isinstance(response, TestResponse) else response.status
    return status, str(shape(response)["code"])


def is_page(response: TestResponse) -> bool:
    """An HTML page, without a trace of what went wrong inside."""
    text = response.get_data(as_text=True)
    assert "Traceback" not in text
    return response.mimetype == "text/html" and text.startswith("<!doctype html>")


def csrf_token(page: TestResponse) -> str:
    """The token of the first form on a page."""
    return page.get_data(as_text=True).split('name="csrf_token" value="', 1)[1].split('"', 1)[0]
