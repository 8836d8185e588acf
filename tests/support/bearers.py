"""Tokens, good and bad, and a service that is shown them."""

from __future__ import annotations

import base64
import hmac
import json
import time
from typing import Any

import jwt
from flask.testing import FlaskClient

from couponapp.auth.tokens import MAX_TOKEN_LENGTH
from couponapp.config import settings
from tests.support.servers import JWT_SECRET, service_environ
from tests.support.shape import told
from tests.support.still import still_app


def client_of(**environ: str) -> FlaskClient:
    """A service that never gets as far as its database: an id of 0 is looked up nowhere."""
    unused = service_environ("postgresql://127.0.0.1:1/unused", "redis://127.0.0.1:1/0", COUPON_DEMO_LOGIN="0")
    return still_app(settings.load({**unused, **environ})).test_client()


def ask(client: FlaskClient, authorization: str | None) -> tuple[int, str]:
    headers = {} if authorization is None else {"Authorization": authorization}
    response = client.post("/api/v1/coupons/0/issue", headers=headers)
    if response.status_code == 401:
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
    return told(response)


ACCEPTED = (404, "COUPON_NOT_FOUND")  # the caller is known; the coupon is not
REFUSED = (401, "UNAUTHENTICATED")


def good(**changes: Any) -> dict[str, Any]:
    """The claims of a good token, changed; None leaves a claim out."""
    claims = {"sub": "kim", "aud": "coupon", "exp": int(time.time()) + 86_400, **changes}
    return {name: value for name, value in claims.items() if value is not None}


def hs256(claims: dict[str, Any], secret: str = JWT_SECRET, **headers: Any) -> str:
    return jwt.encode(claims, secret, algorithm="HS256", headers=headers or None)


def by_hand(header: Any, payload: Any, key: bytes | None, digest: str = "sha256") -> str:
    """A token as no library would write it; signed by HMAC where there is a key."""
    parts = [raw if isinstance(raw, bytes) else json.dumps(raw).encode() for raw in (header, payload)]
    signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    signature = b"" if key is None else hmac.digest(key, signed, digest)
    return (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


SIGNATURE_OF_HS256 = {"alg": "HS256", "typ": "JWT"}
SECRET = JWT_SECRET.encode()


def bad_tokens() -> dict[str, str]:
    fine = hs256(good())
    head, payload, signature = fine.split(".")
    other = hs256(good(sub="lee"), "another-secret-of-32-bytes-or-more")
    return {
        "alg none": by_hand({"alg": "none"}, good(), None),
        "alg None": by_hand({"alg": "None"}, good(), None),
        "alg nOnE, signed": by_hand({"alg": "nOnE"}, good(), SECRET),
        "no alg": by_hand({}, good(), SECRET),
        "alg is a list": by_hand({"alg": ["HS256"]}, good(), SECRET),
        "HS384": by_hand({"alg": "HS384"}, good(), SECRET, "sha384"),
        "HS512": by_hand({"alg": "HS512"}, good(), SECRET, "sha512"),
        "signed with another secret": other,
        "another one's claims": f"{head}.{other.split('.')[1]}.{signature}",
        "no signature": f"{head}.{payload}.",
        "half a signature": f"{head}.{payload}.{signature[:20]}",
        "no third part": f"{head}.{payload}",
        "four parts": f"{fine}.x",
        "five parts": "a.b.c.d.e",
        "unknown critical header": hs256(good(), crit=["x"], x=1),
        "a header that is a list": by_hand([], good(), SECRET),
        "a header that is no JSON": by_hand(b"\xff", good(), SECRET),
        "a deep header": by_hand(b"[" * 5_000, good(), SECRET),
        "claims that are a list": by_hand(SIGNATURE_OF_HS256, [], SECRET),
        "claims that are no JSON": by_hand(SIGNATURE_OF_HS256, b"{", SECRET),
        "claims that are no UTF-8": by_hand(SIGNATURE_OF_HS256, b'{"sub": "\xff"}', SECRET),
        "deep claims": by_hand(SIGNATURE_OF_HS256, b"[" * 5_000, SECRET),
        "expired": hs256(good(exp=int(time.time()) - 60)),
        "not yet": hs256(good(nbf=int(time.time()) + 86_400)),
        "no exp": hs256(good(exp=None)),
        "exp is a text": hs256(good(exp="tomorrow")),
        "exp is infinite": by_hand(SIGNATURE_OF_HS256, b'{"sub":"kim","aud":"coupon","exp":1e999}', SECRET),
        "exp is not a number": by_hand(SIGNATURE_OF_HS256, b'{"sub":"kim","aud":"coupon","exp":NaN}', SECRET),
        "no aud": hs256(good(aud=None)),
        "another aud": hs256(good(aud="other")),
        "other auds": hs256(good(aud=["other", "coupons"])),
        "aud is a number": by_hand(SIGNATURE_OF_HS256, good(aud=5), SECRET),
        "aud is an object": by_hand(SIGNATURE_OF_HS256, good(aud={"coupon": 1}), SECRET),
        "no sub": hs256(good(sub=None)),
        "sub is empty": hs256(good(sub="")),
        "sub is a number": by_hand(SIGNATURE_OF_HS256, good(sub=5), SECRET),
        "sub is a list": by_hand(SIGNATURE_OF_HS256, good(sub=["kim"]), SECRET),
        "sub of 129 characters": hs256(good(sub="x" * 129)),
        "sub with a line break": hs256(good(sub="kim\n")),
        "sub with NUL": hs256(good(sub="kim\0")),
        "sub with an escape": hs256(good(sub="\x1b[31m")),
        "sub with an invisible character": hs256(good(sub="kim\u200b")),
        "sub with a lone surrogate": hs256(good(sub="\ud800")),
        "too long": hs256(good(x="y" * MAX_TOKEN_LENGTH)),
        "empty": "",
        "dots": "..",
        "garbage": "garbage",
        "not ASCII": "\xe9.\xe9.\xe9",
        "an object": json.dumps(good()),
    }
