"""Bearer tokens (JWT, RFC 7519): who signed one, and for whom."""

from __future__ import annotations

import binascii
import hmac
import re
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import jwt
from jwt.algorithms import HMACAlgorithm
from jwt.api_jws import PyJWS
from jwt.utils import force_bytes

from couponapp.auth.jwks import KEY_SET_ALGORITHMS, KeySet
from couponapp.config.settings import Settings
from couponapp.errors import Unauthenticated

MAX_SUBJECT_LENGTH = 128
MAX_TOKEN_LENGTH = 8 * 1024
LEEWAY_S = 5  # clocks of the shop and ours may differ a little

HMAC_ALGORITHMS = ["HS256"]


# A customer's clicks and page loads bring the same token again and again; verifying it takes as long
# as all other checks of an attempt together. At some 400 bytes each.
MAX_REMEMBERED = 20_000


class Verified(NamedTuple):
    """What a token has turned out to say."""

    user_id: str
    expires_s: int


class Verifier(Protocol):
    """Tells whose token it is."""

    @property
    def key_version(self) -> int:
        """Changes with the keys."""

    def verify(self, token: str) -> Verified:
        """Whom a token speaks for, and until when; raises Unauthenticated."""


class CachingVerifier:
    """Verifies each token once, as long as the keys stay the same and the token has not expired."""

    def __init__(self, verifier: Verifier, *, clock: Callable[[], float] = time.time) -> None:
        """Remember nothing yet.

        Args:
            verifier: asked for what is not remembered. A refusal is never remembered.
            clock: the time of day, in seconds since 1970.
        """
        self._verifier = verifier
        self._clock = clock
        self._remembered = lru_cache(maxsize=MAX_REMEMBERED)(self._verify)

    def verify(self, token: str) -> str:
        """The user that a token speaks for; raises Unauthenticated."""
        verified = self._remembered(token, self._verifier.key_version)
        if verified.expires_s <= self._clock() - LEEWAY_S:
            raise Unauthenticated()
        return verified.user_id

    def _verify(self, token: str, key_version: int) -> Verified:
        # With the generation that was current before: keys that change meanwhile make it worthless.
        return self._verifier.verify(token)


class ExpectedClaims:
    """What a token must say besides being signed."""

    def __init__(self, *, audience: str, issuer: str) -> None:
        """Keep the expectations.

        Args:
            audience: must be among the token's.
            issuer: must be the token's; empty for any.
        """
        # When a token was issued is no reason to refuse it (RFC 7519, 4.1.6; `nbf` would be one): where this
        # machine's clock is behind, everybody who has just logged in would be sent away.
        self._options: dict[str, Any] = {
            "require": ["exp", "aud", "sub"],
            "verify_iat": False,
            "verify_sub": False,  # `check_subject` is stricter
            "verify_jti": False,
            "verify_iss": bool(issuer),
        }
        self._library = jwt.PyJWT()
        self._library._jws = _Signatures()
        self._audience = audience
        self._issuer = issuer or None

    def decode(self, token: str, key: Any, algorithms: list[str]) -> Verified:
        """What a token says that was signed with this key by one of these algorithms.

        Raises:
            Unauthenticated: for whatever reason; the answer does not tell an attacker which.
        """
        try:
            claims = self._library.decode(
                token,
                key,
                algorithms=algorithms,
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY_S,
                options=self._options,  # type: ignore[arg-type]  # a TypedDict there
            )
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError) as error:
            raise Unauthenticated() from error
        return Verified(check_subject(claims.get("sub")), int(claims["exp"]))


class _Signatures(PyJWS):
    """Reads what is written as it should be at once; PyJWT looks at each character by itself.

    That takes as long as all its other checks together. Whatever is not written as it should be, it
    still sees and refuses.
    """

    @staticmethod
    def _decode_base64url_segment(segment: bytes, name: str) -> bytes:
        if _IS_BASE64URL(segment) and len(segment) % 4 != 1:
            decoded = binascii.a2b_base64(segment.translate(_TO_BASE64) + b"==")
            # Bits beyond the last octet must be zero, or one token could be written in several ways.
            if binascii.b2a_base64(decoded, newline=False).translate(_FROM_BASE64).rstrip(b"=") == segment:
                return decoded
        return PyJWS._decode_base64url_segment(segment, name)


_TO_BASE64 = bytes.maketrans(b"-_", b"+/")
_FROM_BASE64 = bytes.maketrans(b"+/", b"-_")
_IS_BASE64URL = re.compile(rb"[A-Za-z0-9_-]*").fullmatch


def check_subject(subject: object) -> str:
    """A user id as the contract has it: 1 to 128 printable characters.

    Raises:
        Unauthenticated: it is something else.
    """
    if not isinstance(subject, str) or not 1 <= len(subject) <= MAX_SUBJECT_LENGTH or not subject.isprintable():
        raise Unauthenticated()
    return subject


class _Prepared(HMACAlgorithm):
    """Takes the secret as it is; PyJWT would look with every token whether it is long enough, or a public key.

    The settings have looked at its length, and nobody's public key is a secret.
    """

    def __init__(self, secret: bytes) -> None:
        super().__init__(HMACAlgorithm.SHA256)
        self._keyed = hmac.new(secret, digestmod="sha256")

    def prepare_key(self, key: str | bytes) -> bytes:
        return force_bytes(key)

    def check_key_length(self, key: bytes) -> None:
        return None

    def sign(self, msg: bytes, key: bytes) -> bytes:
        of_token = self._keyed.copy()  # has the key in it already
        of_token.update(msg)
        return of_token.digest()


class SecretVerifier:
    """HS256 with a shared secret."""

    key_version = 0  # there is one key

    def __init__(self, secret: str, claims: ExpectedClaims) -> None:
        octets = jwt.utils.base64url_encode(secret.encode()).decode()
        self._key = jwt.PyJWK({"kty": "oct", "k": octets}, "HS256")
        self._key.Algorithm = _Prepared(secret.encode())
        self._claims = claims

    def verify(self, token: str) -> Verified:
        """Whom a token speaks for, and until when; raises Unauthenticated."""
        _check_length(token)
        return self._claims.decode(token, self._key, HMAC_ALGORITHMS)


class KeySetVerifier:
    """RS256, ES256 and EdDSA with a key set that a background thread keeps fresh."""

    def __init__(self, key_set: KeySet, claims: ExpectedClaims) -> None:
        self._key_set = key_set
        self._claims = claims

    @property
    def key_version(self) -> int:
        """Changes when the key set has been read anew."""
        return self._key_set.key_version

    def verify(self, token: str) -> Verified:
        """Whom a token speaks for, and until when; raises Unauthenticated."""
        _check_length(token)
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError) as error:
            raise Unauthenticated() from error
        algorithm, key_id = header.get("alg"), header.get("kid")
        if algorithm not in KEY_SET_ALGORITHMS or not isinstance(key_id, str | None):
            raise Unauthenticated()
        key = self._key_set.key(key_id, algorithm)
        return self._claims.decode(token, key, [algorithm])


def _check_length(token: str) -> None:
    if len(token) > MAX_TOKEN_LENGTH:
        raise Unauthenticated()


def verifier(settings: Settings) -> CachingVerifier:
    """The verifier that the settings ask for."""
    claims = ExpectedClaims(audience=settings.jwt_audience, issuer=settings.jwt_issuer)
    if settings.jwt_jwks:
        return CachingVerifier(KeySetVerifier(KeySet(settings.jwt_jwks), claims))
    return CachingVerifier(SecretVerifier(settings.jwt_secret, claims))


def sign(settings: Settings, user_id: str, *, ttl_s: int, role: str = "") -> str:
    """A token for a user, signed with the shared secret.

    Args:
        settings: with `jwt_secret`.
        user_id: the `sub`.
        ttl_s: seconds until it expires.
        role: the `role` claim; empty for none.

    Raises:
        ConfigurationError: there is no shared secret.
        Unauthenticated: the user id is not one.
    """
    settings.require("jwt_secret")
    check_subject(user_id)
    now = int(time.time())
    claims: dict[str, Any] = {"sub": user_id, "aud": settings.jwt_audience, "iat": now, "exp": now + ttl_s}
    if settings.jwt_issuer:
        claims["iss"] = settings.jwt_issuer
    if role:
        claims["role"] = role
    return jwt.encode(claims, settings.jwt_secret, algorithm="HS256")
