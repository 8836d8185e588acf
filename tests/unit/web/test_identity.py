"""Who the caller is: bearer tokens that are signed with the shared secret (HS256), over HTTP."""

from __future__ import annotations

import time
from typing import Any

import pytest
from flask.testing import FlaskClient

from couponapp.auth import tokens
from couponapp.config import settings
from couponapp.errors import ConfigurationError
from tests.support.bearers import ACCEPTED, REFUSED, ask, bad_tokens, client_of, good, hs256
from tests.support.servers import service_environ
from tests.support.shape import told
from tests.support.still import still_app


@pytest.fixture(scope="module")
def shared() -> FlaskClient:
    """A service with a shared secret; these requests leave nothing behind."""
    return client_of()


@pytest.mark.parametrize(
    "claims",
    [
        good(),
        good(aud=["other", "coupon"]),
        good(sub="x" * 128),
        good(sub="김민준 😀"),
        good(role="admin", iss="whoever", iat=int(time.time())),
        good(iat=int(time.time()) + 3_600),  # by a clock that is ahead of ours
        good(exp=10**12),
    ],
)
def test_a_good_token_is_accepted(shared: FlaskClient, claims: dict[str, Any]) -> None:
    assert ask(shared, f"Bearer {hs256(claims)}") == ACCEPTED


def test_the_scheme_is_case_insensitive(shared: FlaskClient) -> None:
    for scheme in ("Bearer", "bearer", "BEARER", "Bearer "):
        assert ask(shared, f"{scheme} {hs256(good())}") == ACCEPTED, scheme


@pytest.mark.parametrize("what", bad_tokens())
def test_a_bad_token_is_unauthenticated(shared: FlaskClient, what: str) -> None:
    assert ask(shared, f"Bearer {bad_tokens()[what]}") == REFUSED


def test_no_token_or_another_scheme_is_unauthenticated(shared: FlaskClient) -> None:
    fine = hs256(good())
    for header in (None, "", "Bearer", "Bearer ", fine, f"Basic {fine}", f"Token {fine}", f"Bearer{fine}", "\xff"):
        assert ask(shared, header) == REFUSED, header


def test_the_api_ignores_a_token_in_the_address_or_a_cookie(shared: FlaskClient) -> None:
    path = f"/api/v1/me/coupons?access_token={hs256(good())}"
    shared.set_cookie("coupon_token", hs256(good()))
    assert told(shared.get(path)) == REFUSED


def test_the_issuer_is_checked_where_one_is_set() -> None:
    client = client_of(COUPON_JWT_ISSUER="https://shop.example")
    issuers = ("https://shop.example", "https://shop.example/", "https://evil.example", "", None)
    found = [ask(client, f"Bearer {hs256(good(iss=issuer))}") for issuer in issuers]
    assert found == [ACCEPTED, REFUSED, REFUSED, REFUSED, REFUSED]


def test_the_audience_is_the_configured_one() -> None:
    client = client_of(COUPON_JWT_AUDIENCE="shop")
    assert ask(client, f"Bearer {hs256(good(aud='shop'))}") == ACCEPTED
    assert ask(client, f"Bearer {hs256(good(aud='coupon'))}") == REFUSED


def test_a_token_of_our_own_is_accepted() -> None:
    environ = service_environ("postgresql://127.0.0.1:1/unused", "redis://127.0.0.1:1/0", COUPON_JWT_ISSUER="shop")
    client = still_app(settings.load(environ)).test_client()
    token = tokens.sign(settings.load(environ), "kim", ttl_s=60, role="admin")
    assert ask(client, f"Bearer {token}") == ACCEPTED


# Settings


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"COUPON_JWT_JWKS": "keys.json"}, ["COUPON_JWT_SECRET", "COUPON_JWT_JWKS"]),
        ({"COUPON_JWT_SECRET": "x" * 31}, ["COUPON_JWT_SECRET"]),
        ({"COUPON_JWT_SECRET": ""}, ["COUPON_JWT_SECRET", "COUPON_JWT_JWKS"]),
    ],
)
def test_no_secret_a_short_one_or_one_besides_a_key_set_stops_the_start(
    environ: dict[str, str], named: list[str]
) -> None:
    with pytest.raises(ConfigurationError) as error:
        client_of(**environ)
    assert all(name in str(error.value) for name in named)
    assert "x" * 31 not in str(error.value)
