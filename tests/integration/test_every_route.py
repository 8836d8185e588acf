"""Every route, found by walking the URL map: who may ask, what is refused, and in which shape."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from flask import Flask, Response
from flask.testing import FlaskClient
from werkzeug.routing import Rule

from couponapp.config import settings
from tests.support.shape import csrf_token, is_page, shape, told

MakeApp = Callable[..., Flask]

# What anybody may ask, and why. Everything else needs to know who asks.
PUBLIC = {
    "api.list_coupons",  # the contract: public
    "api.get_coupon",  # likewise
    "login.ask",  # whoever has not logged in
    "login.log_in",  # likewise
    "login.log_out",  # forgetting a visitor needs no visitor
    "openapi.show",  # a description
    "pages.home",  # what is offered
    "pages.show_coupon",  # likewise
    "probes.livez",  # load balancers
    "probes.readyz",  # likewise
    "probes.show_metrics",  # Prometheus; the proxy keeps others out
    "static",  # files
}
BROWSER = {"Accept": "text/html"}
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"]


class Route(NamedTuple):
    """One method of one rule, with an address that it matches."""

    endpoint: str
    method: str
    path: str


def address(rule: Rule) -> str:
    """A path that the rule matches; every parameter is 1."""
    return str(rule.build(dict.fromkeys(rule.arguments, "1"), append_unknown=False)[1])  # type: ignore[index]


def routes(app: Flask) -> Iterator[Route]:
    for rule in app.url_map.iter_rules():
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield Route(rule.endpoint, method, address(rule))


def ask_anonymously(client: FlaskClient, route: Route) -> tuple[int, str]:
    """Status and Location of a request by nobody; with the form's token, which anybody can get."""
    data = {} if route.method == "GET" or route.path.startswith("/api/") else {"csrf_token": token(client)}
    response = client.open(route.path, method=route.method, data=data)
    return response.status_code, response.headers.get("Location", "")


def token(client: FlaskClient) -> str:
    return csrf_token(client.get("/login"))


def neither_guarded_nor_public(app: Flask) -> list[Route]:
    """Routes that answer an anonymous request although nobody has said that they may."""
    client = app.test_client()
    found = []
    for route in routes(app):
        status, location = ask_anonymously(client, route)
        guarded = status == 401 or (status == 303 and location.startswith("/login?next="))
        if not guarded and route.endpoint not in PUBLIC:
            found.append(route)
    return found


def test_every_route_asks_who_it_is_unless_it_is_listed_as_public(app: Flask) -> None:
    assert neither_guarded_nor_public(app) == []


def test_a_route_that_forgets_to_ask_is_caught(app: Flask) -> None:
    app.add_url_rule("/api/v1/all-issuances", "forgotten", lambda: Response("everything"))
    app.add_url_rule("/everything", "forgotten_page", lambda: Response("everything"), methods=["POST"])
    assert {route.endpoint for route in neither_guarded_nor_public(app)} == {"forgotten", "forgotten_page"}


def test_every_route_that_is_listed_as_public_is_there_and_answers(app: Flask) -> None:
    found = {route.endpoint: ask_anonymously(app.test_client(), route) for route in routes(app)}
    assert set(found) >= PUBLIC
    for endpoint in PUBLIC:
        assert found[endpoint][0] in (200, 303, 400, 404), endpoint  # there is no coupon 1, no file 1


def test_every_guarded_route_of_the_api_says_how_to_ask(app: Flask) -> None:
    client = app.test_client()
    guarded = [r for r in routes(app) if r.endpoint.startswith("api.") and r.endpoint not in PUBLIC]
    assert len(guarded) >= 3
    for route in guarded:
        response = client.open(route.path, method=route.method)
        assert told(response) == (401, "UNAUTHENTICATED"), route
        assert response.headers["WWW-Authenticate"].startswith("Bearer"), route


def test_without_the_demo_login_the_pages_answer_401_instead_of_leading_to_it(
    make_app: MakeApp, environ: dict[str, str]
) -> None:
    app = make_app(settings.load({**environ, "COUPON_DEMO_LOGIN": "0"}))
    client = app.test_client()
    assert not [route for route in routes(app) if route.endpoint.startswith("login.")]
    assert told(client.get("/login")) == (404, "NOT_FOUND")
    response = client.get("/my-coupons", headers=BROWSER)
    assert response.status_code == 401
    assert is_page(response)


def forms_without_token(app: Flask) -> list[Route]:
    """Routes outside the API that change something and take a form without its token."""
    client = app.test_client()
    changing = [r for r in routes(app) if r.method != "GET" and not r.path.startswith("/api/")]
    assert changing
    return [r for r in changing if client.open(r.path, method=r.method, data={"user": "kim"}).status_code != 400]


def test_every_form_needs_its_token(app: Flask) -> None:
    assert forms_without_token(app) == []


def test_a_form_that_needs_no_token_is_caught(app: Flask) -> None:
    def careless() -> Response:
        return Response("done")

    app.add_url_rule("/careless", "careless", careless, methods=["POST"])
    app.extensions["csrf"].exempt(careless)
    assert [route.endpoint for route in forms_without_token(app)] == ["careless"]


def allowed(app: Flask, path: str) -> set[str]:
    return set(app.url_map.bind("localhost").allowed_methods(path))


def test_every_route_refuses_other_methods_in_the_one_shape(app: Flask) -> None:
    client = app.test_client()
    for path in sorted({route.path for route in routes(app)}):
        for method in METHODS:
            if method in allowed(app, path):
                continue
            response = client.open(path, method=method)
            assert told(response) == (405, "METHOD_NOT_ALLOWED"), (method, path)
            assert set(response.headers["Allow"].split(", ")) == allowed(app, path), (method, path)


def test_a_browser_is_refused_another_method_with_a_page(app: Flask) -> None:
    response = app.test_client().delete("/my-coupons", headers=BROWSER)
    assert response.status_code == 405
    assert is_page(response)


@pytest.mark.parametrize("path", ["/nowhere", "/api", "/api/v1", "/api/v1/nowhere", "/api/v2/coupons", "/static/"])
def test_what_is_not_there_is_not_found_in_the_one_shape(client: FlaskClient, path: str) -> None:
    for method in METHODS:
        assert told(client.open(path, method=method)) == (404, "NOT_FOUND"), method


def test_what_is_not_there_is_a_page_for_a_browser_outside_the_api(client: FlaskClient) -> None:
    page, answer = client.get("/nowhere", headers=BROWSER), client.get("/api/v1/nowhere", headers=BROWSER)
    assert page.status_code == 404
    assert is_page(page)
    assert told(answer) == (404, "NOT_FOUND")


def test_what_nobody_expected_is_a_500_in_the_one_shape_without_a_word_of_the_inside(app: Flask) -> None:
    def breaks() -> Response:
        raise RuntimeError("postgresql://user:password@host")

    app.add_url_rule("/breaks", "breaks", breaks)
    app.config["PROPAGATE_EXCEPTIONS"] = False
    answer, page = app.test_client().get("/breaks"), app.test_client().get("/breaks", headers=BROWSER)
    assert told(answer) == (500, "INTERNAL_ERROR")
    assert shape(answer)["data"] is None
    assert page.status_code == 500
    assert is_page(page)
    for response in (answer, page):
        assert "RuntimeError" not in response.get_data(as_text=True)
        assert "password" not in response.get_data(as_text=True)


def test_every_answer_has_the_headers_that_protect_browsers(app: Flask) -> None:
    client = app.test_client()
    for route in routes(app):
        headers = client.open(route.path, method=route.method).headers
        assert headers["X-Content-Type-Options"] == "nosniff", route
        assert headers["X-Frame-Options"] == "DENY", route
        assert "default-src 'none'" in headers["Content-Security-Policy"], route
        assert "unsafe" not in headers["Content-Security-Policy"], route
