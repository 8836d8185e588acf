"""Which hosts a request may name."""

from __future__ import annotations

from wsgiref.types import WSGIEnvironment

import pytest
from flask import Flask, request
from flask_wtf import CSRFProtect
from flask_wtf.csrf import CSRFError
from werkzeug.test import create_environ

from couponapp.errors import InvalidRequest, NotFound
from couponapp.web.api.views import api
from couponapp.web.hosts import check_request
from couponapp.web.probes import probes

ALLOWED = ("shop.example", ".stores.example", "[::1]", "10.0.0.1")


@pytest.fixture(scope="module")
def app() -> Flask:
    app = Flask("hosts")
    app.url_map.merge_slashes = False
    app.config.update(SECRET_KEY="k" * 32, WTF_CSRF_CHECK_DEFAULT=False)
    app.extensions["csrf-of-the-test"] = CSRFProtect(app)
    for blueprint in (api, probes):
        app.register_blueprint(blueprint)
    app.add_url_rule("/buy", "buy", lambda: "", methods=["POST"])
    return app


def check(app: Flask, host: str | None, path: str = "/", method: str = "GET") -> None:
    """Check a request; raises where it is refused."""
    environ: WSGIEnvironment = {**create_environ(method=method), "PATH_INFO": path, "HTTP_HOST": host}
    if host is None:
        del environ["HTTP_HOST"]
    with app.request_context(environ):
        check_request(app.extensions["csrf-of-the-test"], ALLOWED)


@pytest.mark.parametrize(
    "host",
    [
        *("shop.example", "SHOP.example", "shop.example:8080", "stores.example", "seoul.stores.example"),
        *("a.b.stores.example:1", "[::1]", "[::1]:8000", "10.0.0.1:80"),
    ],
)
def test_an_allowed_host_passes_in_any_case_and_with_any_port(app: Flask, host: str) -> None:
    check(app, host)


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evilshop.example", "shop.example.evil.example", "a.shop.example", "evilstores.example"),
        *("shop.example:x", "[::2]", "::1", "10.0.0.11", "shop.example@evil.example", " ", "."),
    ],
)
def test_any_other_host_is_refused(app: Flask, host: str) -> None:
    with pytest.raises(InvalidRequest, match="COUPON_ALLOWED_HOSTS"):
        check(app, host)


def test_a_request_without_a_host_is_refused(app: Flask) -> None:
    for missing in (None, ""):
        with pytest.raises(InvalidRequest, match="missing"):
            check(app, missing)


def test_the_probes_answer_whatever_the_host(app: Flask) -> None:
    check(app, "10.9.8.7:8000", "/livez")
    check(app, None, "/metrics")


def test_a_path_with_two_slashes_is_not_there_even_where_it_would_be_a_probe(app: Flask) -> None:
    with app.request_context({**create_environ(), "PATH_INFO": "//metrics"}):
        assert request.blueprint == probes.name  # Werkzeug would serve it
    with pytest.raises(NotFound):
        check(app, "shop.example", "//metrics")


def test_a_form_needs_its_token_and_the_api_which_takes_no_cookie_needs_none(app: Flask) -> None:
    with pytest.raises(CSRFError):
        check(app, "shop.example", "/buy", "POST")
    check(app, "shop.example", "/api/v1/coupons/1/issue", "POST")
