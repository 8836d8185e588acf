"""Flask-Limiter around the views that work per user or that write: one 429, bounded without Redis."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from couponapp.config import settings
from couponapp.local.postgres import free_port
from couponapp.web.limits import _MARK
from tests.support.shape import csrf_token, told

MakeApp = Callable[..., Flask]
Bearer = Callable[[str], dict[str, str]]
TWO = {"COUPON_LIMIT_MY_COUPONS": "2/minute", "COUPON_LIMIT_LOGIN": "2/minute"}

# What is answered from memory, or costs as good as nothing, and what has limits of its own.
UNLIMITED = {
    "api.issue_coupon",  # the limits of the issue path
    "pages.issue_coupon",  # the same
    "api.list_coupons",  # from memory
    "api.get_coupon",  # from memory
    "pages.home",  # from memory
    "pages.show_coupon",  # from memory
    "openapi.show",  # from memory
    "login.ask",  # a form
    "login.log_out",  # drops a cookie
    "probes.livez",  # load balancers
    "probes.readyz",  # load balancers
    "probes.show_metrics",  # Prometheus
    "static",  # files
}


@pytest.fixture
def client(make_app: MakeApp, environ: dict[str, str]) -> FlaskClient:
    return make_app(settings.load({**environ, **TWO})).test_client()


def unlimited(app: Flask) -> set[str]:
    return {name for name, view in app.view_functions.items() if not hasattr(view, _MARK)}


def test_every_view_has_a_limit_unless_it_is_listed(app: Flask) -> None:
    assert unlimited(app) == UNLIMITED


def test_a_view_that_forgets_its_limit_is_caught(app: Flask) -> None:
    app.add_url_rule("/api/v1/me/secrets", "forgotten", lambda: "secrets")
    assert unlimited(app) - UNLIMITED == {"forgotten"}


@pytest.mark.parametrize("path", ["/api/v1/me/coupons", "/api/v1/me/coupons/1"])
def test_a_user_over_the_limit_receives_the_one_429_and_others_do_not(
    client: FlaskClient, bearer: Bearer, path: str
) -> None:
    answers = [client.get(path, headers=bearer("kim")) for _ in range(3)]
    assert [answer.status_code == 429 for answer in answers] == [False, False, True]
    assert told(answers[2]) == (429, "TOO_MANY_REQUESTS")
    assert answers[2].get_json()["message"] == "요청이 너무 많습니다. 잠시 후 다시 시도해주세요."
    assert 1 <= int(answers[2].headers["Retry-After"]) <= 61
    assert client.get(path, headers=bearer("lee")).status_code != 429


def test_a_request_without_a_token_counts_for_no_user(client: FlaskClient) -> None:
    assert {client.get("/api/v1/me/coupons").status_code for _ in range(5)} == {401}


def test_two_servers_count_together(make_app: MakeApp, environ: dict[str, str], bearer: Bearer) -> None:
    clients = [make_app(settings.load({**environ, **TWO})).test_client() for _ in range(2)]
    answers = [client.get("/api/v1/me/coupons", headers=bearer("kim")).status_code for client in clients * 2]
    assert answers == [200, 200, 429, 429]


def test_the_page_shows_its_visitor_that_there_were_too_many_requests(client: FlaskClient) -> None:
    form = {"user": "kim", "csrf_token": csrf_token(client.get("/login"))}
    assert client.post("/login", data=form).status_code == 303
    pages = [client.get("/my-coupons", headers={"Accept": "text/html"}) for _ in range(3)]
    assert [page.status_code for page in pages] == [200, 200, 429]
    assert "요청이 너무 많습니다" in pages[2].text
    assert int(pages[2].headers["Retry-After"]) >= 1


def test_logins_are_limited_by_address(client: FlaskClient) -> None:
    def log_in(address: str) -> int:
        form = {"user": "kim", "csrf_token": csrf_token(client.get("/login"))}
        return client.post("/login", data=form, environ_base={"REMOTE_ADDR": address}).status_code

    assert [log_in("192.0.2.8") for _ in range(3)] == [303, 303, 429]
    assert log_in("192.0.2.9") == 303


def test_without_redis_each_process_counts_by_itself(
    make_app: MakeApp, environ: dict[str, str], bearer: Bearer
) -> None:
    away = {**environ, **TWO, "REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}
    client = make_app(settings.load(away)).test_client()
    answers = [client.get("/api/v1/me/coupons", headers=bearer("kim")).status_code for _ in range(3)]
    assert answers == [200, 200, 429]


def frames_of(package: str, action: Callable[[], Any]) -> int:
    """Count the calls into a package while something happens."""
    called = 0

    def look(frame: FrameType, event: str, _: Any) -> None:
        nonlocal called
        called += event == "call" and str(frame.f_globals.get("__name__", "")).startswith(package)

    sys.setprofile(look)
    try:
        action()
    finally:
        sys.setprofile(None)
    return called


def test_a_view_without_a_limit_pays_nothing_for_flask_limiter(client: FlaskClient, bearer: Bearer) -> None:
    assert frames_of("flask_limiter", lambda: client.get("/api/v1/coupons")) == 0
    # Negative control: a limited view calls it.
    assert frames_of("flask_limiter", lambda: client.get("/api/v1/me/coupons", headers=bearer("kim"))) > 0
