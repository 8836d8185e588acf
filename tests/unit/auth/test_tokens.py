"""HS256 tokens: a signature has one spelling, and a public key is no secret."""

from __future__ import annotations

import base64
import string
from collections.abc import Iterator

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given
from hypothesis import strategies as st

from couponapp.auth.tokens import ExpectedClaims, SecretVerifier
from couponapp.errors import ConfigurationError, Unauthenticated

SECRET = "secret-of-32-bytes-or-more-for-hs256"
ALPHABET = string.ascii_letters + string.digits + "-_"


def verifier(secret: str = SECRET) -> SecretVerifier:
    return SecretVerifier(secret, ExpectedClaims(audience="coupon", issuer=""))


def token(user_id: str) -> str:
    return jwt.encode({"sub": user_id, "aud": "coupon", "exp": 10**12}, SECRET, algorithm="HS256")


def tolerantly_decoded(segment: str) -> bytes:
    """Decode as the standard library does, which skips foreign characters and ignores unused bits."""
    return base64.urlsafe_b64decode(segment + "==")


def respellings(segment: str) -> Iterator[str]:
    """Other texts that a tolerant decoder takes for the same bytes."""
    yield from (segment[:-1] + last for last in ALPHABET if last != segment[-1])
    yield from (segment + "\n", segment[:5] + " " + segment[5:], segment[:5] + "!" + segment[5:], segment + "=" * 5)
    yield segment.replace("-", "+").replace("_", "/")


@given(st.text(string.ascii_letters, min_size=1, max_size=20))
def test_a_signature_that_is_spelled_differently_is_refused(user_id: str) -> None:
    signed, _, signature = token(user_id).rpartition(".")
    assert verifier().verify(f"{signed}.{signature}").user_id == user_id
    same = [other for other in respellings(signature) if tolerantly_decoded(other) == tolerantly_decoded(signature)]
    assert len(same) >= 6  # so a tolerant decoder would accept each of them
    for other in same:
        if other != signature:
            with pytest.raises(Unauthenticated):
                verifier().verify(f"{signed}.{other}")


def test_a_public_key_is_refused_as_a_shared_secret() -> None:
    public = ed25519.Ed25519PrivateKey.generate().public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    ssh = public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    for key in (pem, ssh):
        with pytest.raises(ConfigurationError, match=r"^COUPON_JWT_SECRET is a public key") as error:
            verifier(key.decode())
        assert key.decode() not in str(error.value)
    assert verifier().verify(token("kim")).user_id == "kim"
