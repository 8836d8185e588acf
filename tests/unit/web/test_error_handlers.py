"""Which headers go with an error, and who gets a page."""

from __future__ import annotations

import logging

import pytest
from flask import Flask

from couponapp import errors
from couponapp.web.error_handlers import headers_of, report_unavailable, wants_page
from couponapp.web.responses import RESPONSES

BROWSER = "text/html,application/xhtml+xml,*/*;q=0.8"


def test_a_refusal_by_a_limit_says_when_to_come_back_and_which_limit_it_was() -> None:
    assert headers_of(errors.TooManyRequests(7, 5)) == {
        "Retry-After": "7",
        "RateLimit-Limit": "5",
        "RateLimit-Remaining": "0",
        "RateLimit-Reset": "7",
    }
    # The limit of a process is nobody's own.
    assert headers_of(errors.TooManyRequests(7)) == {"Retry-After": "7"}


def test_every_503_says_when_to_come_back_and_every_401_what_is_wanted() -> None:
    for kind in (errors.Unavailable, errors.QueueFull, errors.CircuitOpen, errors.ConnectionLost, errors.Overloaded):
        assert RESPONSES[kind.code].status == 503
        assert 1 <= int(headers_of(kind())["Retry-After"]) <= 5
    assert headers_of(errors.Unauthenticated())["WWW-Authenticate"].startswith("Bearer ")
    assert headers_of(errors.NotFound()) == {}


@pytest.mark.parametrize(
    ("path", "accepted", "page"),
    [
        ("/", BROWSER, True),
        ("/coupons/1", BROWSER, True),
        ("/api/v1/coupons", BROWSER, False),
        ("/", "*/*", False),
        ("/", "", False),
        ("/", "application/json, text/html;q=0.9", False),
        ("/", "text/html;q=0.9, application/json;q=0.8", True),
        ("/", "image/png", False),
    ],
)
def test_only_a_browser_outside_the_api_gets_a_page(path: str, accepted: str, page: bool) -> None:
    with Flask("errors").test_request_context(path, headers={"Accept": accepted}):
        assert wants_page() is page


def test_what_the_service_refuses_itself_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        for error in (errors.QueueFull(), errors.DeadlineExceeded(), errors.CircuitOpen()):
            report_unavailable(error)
        report_unavailable(errors.ConnectionLost("server closed the connection"))
    assert [record.getMessage() for record in caplog.records] == ["503: ConnectionLost: server closed the connection"]
