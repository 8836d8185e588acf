"""Bearer tokens (JWT, RFC 7519): verify who signed one and for which user; sign our own."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import jwt

from couponapp.auth import pyjwt_shortcuts
from couponapp.auth.jwks import KEY_SET_ALGORITHMS, KeySet
from couponapp.config.settings import Settings
from couponapp.errors import ConfigurationError, Unauthenticated

MAX_SUBJECT_LENGTH = 128
MAX_TOKEN_LENGTH = 8 * 1024
LEEWAY_S = 5  # the clocks of the shop and of this machine may differ this much
HMAC_ALGORITHM = "HS256"
# Each takes about 400 bytes.
MAX_CACHED_TOKENS = 20_000


class Verified(NamedTuple):
    """What a verified token says: its user, and when it expires, in seconds since 1970."""

    user_id: str
    expires_s: int


class Verifier(Protocol):
    """Verifies tokens with the current keys."""

    @property
    def key_version(self) -> int:
        """A number that changes whenever the keys change."""

    def verify(self, token: str) -> Verified:
        """Return what a token says.

        Raises:
            Unauthenticated: the token is not valid.
        """


class CachingVerifier:
    """Verifies each token once, until it expires or the keys change.

    Clients send the same token with every request: verifying one takes 21 microseconds, finding it in the
    cache half of one (docs/decisions/0029).
    """

    def __init__(self, verifier: Verifier, *, clock: Callable[[], float] = time.time) -> None:
        """Start with an empty cache.

        Args:
            verifier: verifies tokens that are not cached. A refusal is not cached.
            clock: the time of day, in seconds since 1970.
        """
        self._verifier = verifier
        self._clock = clock
        self._verify_cached = lru_cache(maxsize=MAX_CACHED_TOKENS)(self._verify)

    def verify(self, token: str) -> str:
        """Return the user that a token identifies.

        Raises:
            Unauthenticated: the token is not valid.
            couponapp.errors.Unavailable: no key set has been read yet.
        """
        if len(token) > MAX_TOKEN_LENGTH:  # neither worth parsing nor caching
            raise Unauthenticated()
        verified = self._verify_cached(token, self._verifier.key_version)
        if verified.expires_s <= self._clock() - LEEWAY_S:
            raise Unauthenticated()
        return verified.user_id

    def _verify(self, token: str, key_version: int) -> Verified:
        # The key version was read before: if the keys change meanwhile, this entry is never used again.
        return self._verifier.verify(token)


class ExpectedClaims:
    """The claims that a token must have besides a valid signature."""

    def __init__(self, *, audience: str, issuer: str) -> None:
        """Set the expected values.

        Args:
            audience: must be among the token's audiences.
            issuer: must be the token's issuer; empty: any.
        """
        self._options: dict[str, Any] = {
            "require": ["exp", "aud", "sub"],
            # RFC 7519, 4.1.6 gives no reason to refuse a token because of `iat` (`nbf` does). If this machine's
            # clock were behind, every user who has just logged in would be refused.
            "verify_iat": False,
            "verify_sub": False,  # `check_subject` is stricter
            "verify_jti": False,
            "verify_iss": bool(issuer),
        }
        self._library = pyjwt_shortcuts.library()
        self._audience = audience
        self._issuer = issuer or None

    def decode(self, token: str, key: Any, algorithm: str) -> Verified:
        """Return what a token says that must be signed with this key by this algorithm.

        Raises:
            Unauthenticated: the token is not valid. The error never says why, so that it does not help an attacker.
        """
        try:
            claims = self._library.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY_S,
                options=self._options,  # type: ignore[arg-type]  # a TypedDict there
            )
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError) as error:
            raise Unauthenticated() from error
        return Verified(check_subject(claims.get("sub")), int(claims["exp"]))


def check_subject(subject: object) -> str:
    """Return a user id if it is valid: 1 to 128 printable characters.

    Raises:
        Unauthenticated: it is not.
    """
    if not isinstance(subject, str) or not 1 <= len(subject) <= MAX_SUBJECT_LENGTH or not subject.isprintable():
        raise Unauthenticated()
    return subject


class SecretVerifier:
    """Verifies HS256 tokens with a shared secret."""

    key_version = 0  # the secret never changes while the process runs

    def __init__(self, secret: str, claims: ExpectedClaims) -> None:
        """Check the secret.

        Args:
            secret: the shared secret.
            claims: what each token must say.

        Raises:
            ConfigurationError: the secret is a public key in PEM or SSH format, which anybody may know.
        """
        try:
            jwt.get_algorithm_by_name(HMAC_ALGORITHM).prepare_key(secret)
        except jwt.InvalidKeyError:
            raise ConfigurationError("COUPON_JWT_SECRET is a public key; COUPON_JWT_JWKS takes key sets") from None
        self._key = pyjwt_shortcuts.prepared_key(secret)
        self._claims = claims

    def verify(self, token: str) -> Verified:
        """Return what a token says.

        Raises:
            Unauthenticated: the token is not valid.
        """
        return self._claims.decode(token, self._key, HMAC_ALGORITHM)


class KeySetVerifier:
    """Verifies RS256, ES256 and EdDSA tokens with a key set."""

    def __init__(self, key_set: KeySet, claims: ExpectedClaims) -> None:
        self._key_set = key_set
        self._claims = claims

    @property
    def key_version(self) -> int:
        """The key set's version."""
        return self._key_set.key_version

    def verify(self, token: str) -> Verified:
        """Return what a token says.

        Raises:
            Unauthenticated: the token is not valid.
            couponapp.errors.Unavailable: no key set has been read yet.
        """
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError) as error:
            raise Unauthenticated() from error
        algorithm, key_id = header.get("alg"), header.get("kid")
        if algorithm not in KEY_SET_ALGORITHMS or not isinstance(key_id, str | None):
            raise Unauthenticated()
        return self._claims.decode(token, self._key_set.key(key_id, algorithm), algorithm)


def verifier(settings: Settings) -> CachingVerifier:
    """Return the verifier that the settings select.

    Raises:
        ConfigurationError: the key set's file cannot be used, or the secret is a public key.
    """
    claims = ExpectedClaims(audience=settings.jwt_audience, issuer=settings.jwt_issuer)
    if settings.jwt_jwks:
        return CachingVerifier(KeySetVerifier(KeySet(settings.jwt_jwks), claims))
    return CachingVerifier(SecretVerifier(settings.jwt_secret, claims))


def sign(settings: Settings, user_id: str, *, ttl_s: int, role: str = "") -> str:
    """Return a token for a user, signed with the shared secret.

    Args:
        settings: with `jwt_secret`.
        user_id: the `sub` claim.
        ttl_s: seconds until the token expires.
        role: the `role` claim; empty for none.

    Raises:
        ConfigurationError: there is no shared secret.
        Unauthenticated: the user id is not valid.
    """
    settings.require("jwt_secret")
    check_subject(user_id)
    now = int(time.time())
    claims: dict[str, Any] = {"sub": user_id, "aud": settings.jwt_audience, "iat": now, "exp": now + ttl_s}
    if settings.jwt_issuer:
        claims["iss"] = settings.jwt_issuer
    if role:
        claims["role"] = role
    return jwt.encode(claims, settings.jwt_secret, algorithm=HMAC_ALGORITHM)
