"""Every code has a status and a message in both languages, and every answer the one shape."""

from __future__ import annotations

import json
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from flask import Flask

from couponapp.issuing.statement import Outcome
from couponapp.web.responses import (
    CODE_OF_STATUS,
    RESPONSES,
    jittered_retry_after,
    json_response,
    language,
    message,
    retry_after,
    timestamp,
)

APP = Flask("responses")
KOREAN = range(ord("가"), ord("힣") + 1)


def test_every_code_has_a_sentence_in_each_language() -> None:
    for code, entry in RESPONSES.items():
        assert any(ord(letter) in KOREAN for letter in entry.ko), code
        assert entry.en.isascii(), code
        assert entry.ko[-1] == entry.en[-1] == ".", code
        assert 200 <= entry.status < 600, code


def test_every_outcome_has_an_answer_except_a_replay_which_repeats_issued() -> None:
    assert {outcome.value for outcome in Outcome} - set(RESPONSES) == {Outcome.REPLAYED.value}


def test_a_status_of_the_framework_gets_a_code_with_the_same_status() -> None:
    assert {status: RESPONSES[code].status for status, code in CODE_OF_STATUS.items()} == {
        status: status for status in CODE_OF_STATUS
    }


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        ("", "ko"),
        ("en", "en"),
        ("en-GB,en;q=0.9", "en"),
        ("fr", "ko"),
        ("fr,en;q=0.1", "en"),
        ("ko,en", "ko"),
        ("en;q=0.4,ko;q=0.6", "ko"),
        ("ko;q=0,en", "en"),
        ("*", "ko"),
        ("en;q=x,,;", "ko"),
    ],
)
def test_answers_are_korean_unless_english_is_preferred(accepted: str, expected: str) -> None:
    with APP.test_request_context(headers={"Accept-Language": accepted}):
        assert language() == expected
        assert message("SOLD_OUT") == getattr(RESPONSES["SOLD_OUT"], expected)
        assert json_response("SOLD_OUT").headers["Content-Language"] == expected


def test_a_detail_follows_the_message_and_the_status_may_be_another_one() -> None:
    with APP.test_request_context(headers={"Accept-Language": "en"}):
        response = json_response("INVALID_REQUEST", detail="limit: 1 to 100", status=418, headers={"X-More": "1"})
    body = json.loads(response.get_data())
    assert body == {
        "success": False,
        "code": "INVALID_REQUEST",
        "message": "The request is not valid. (limit: 1 to 100)",
        "data": None,
    }
    assert (response.status_code, response.headers["X-More"]) == (418, "1")


def test_a_header_of_one_answer_is_not_on_the_next_although_their_bodies_are_shared() -> None:
    with APP.test_request_context():
        json_response("SOLD_OUT", headers={"Retry-After": "3"}).headers["X-Mine"] = "1"
        json_response("SOLD_OUT").headers["X-Mine"] = "1"
        assert {"Retry-After", "X-Mine"}.isdisjoint(json_response("SOLD_OUT").headers.keys())


def test_the_length_is_that_of_the_bytes_and_a_head_has_no_body() -> None:
    APP.add_url_rule("/sold-out", "sold-out", lambda: json_response("SOLD_OUT"))
    client = APP.test_client()
    whole, head = client.get("/sold-out"), client.head("/sold-out")
    assert int(whole.headers["Content-Length"]) == len(whole.data) > len(whole.get_data(as_text=True))
    assert (head.headers["Content-Length"], head.data) == (whole.headers["Content-Length"], b"")


def test_a_client_is_never_asked_to_come_back_too_early_or_at_once() -> None:
    assert [retry_after(seconds)["Retry-After"] for seconds in (-1.0, 0.0, 0.2, 1.0, 1.2)] == ["1", "1", "1", "1", "2"]
    assert {jittered_retry_after()["Retry-After"] for _ in range(500)} == set("12345")


def test_a_moment_is_shown_in_utc_with_milliseconds() -> None:
    assert timestamp(datetime(2026, 11, 23, 9, 0, 0, 7_999, ZoneInfo("Asia/Seoul"))) == "2026-11-23T00:00:00.007Z"
