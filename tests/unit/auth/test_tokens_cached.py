"""A token is verified once, and accepted no longer than it would be without the cache."""

from __future__ import annotations

import pytest

from couponapp.auth.tokens import LEEWAY_S, MAX_TOKEN_LENGTH, CachingVerifier, Verified
from couponapp.errors import Unauthenticated
from tests.support.clock import Clock


class Keys:
    """A verifier that knows some tokens and counts its calls."""

    def __init__(self) -> None:
        self.key_version = 0
        self.known = {"token of kim": Verified("kim", 1_000)}
        self.calls = 0

    def verify(self, token: str) -> Verified:
        self.calls += 1
        if token not in self.known:
            raise Unauthenticated()
        return self.known[token]


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.fixture
def clock() -> Clock:
    return Clock(0.0)


@pytest.fixture
def caching(keys: Keys, clock: Clock) -> CachingVerifier:
    return CachingVerifier(keys, clock=clock)


def test_a_token_that_comes_again_is_not_verified_again(caching: CachingVerifier, keys: Keys) -> None:
    assert [caching.verify("token of kim") for _ in range(3)] == ["kim"] * 3
    assert keys.calls == 1


def test_a_cached_token_expires_when_it_says(caching: CachingVerifier, clock: Clock) -> None:
    caching.verify("token of kim")
    clock.now_s = 1_000 + LEEWAY_S - 0.001
    assert caching.verify("token of kim") == "kim"
    clock.now_s = 1_000 + LEEWAY_S
    with pytest.raises(Unauthenticated):
        caching.verify("token of kim")


def test_a_cached_token_is_refused_once_its_key_is_gone(caching: CachingVerifier, keys: Keys) -> None:
    caching.verify("token of kim")
    keys.known.clear()
    assert caching.verify("token of kim") == "kim"  # the key version is still the same
    keys.key_version += 1
    with pytest.raises(Unauthenticated):
        caching.verify("token of kim")


def test_a_refusal_is_not_cached(caching: CachingVerifier, keys: Keys) -> None:
    with pytest.raises(Unauthenticated):
        caching.verify("token of lee")
    keys.known["token of lee"] = Verified("lee", 1_000)
    assert caching.verify("token of lee") == "lee"


def test_a_token_that_is_too_long_is_not_even_read(caching: CachingVerifier, keys: Keys) -> None:
    keys.known["x" * (MAX_TOKEN_LENGTH + 1)] = Verified("kim", 1_000)
    with pytest.raises(Unauthenticated):
        caching.verify("x" * (MAX_TOKEN_LENGTH + 1))
    assert keys.calls == 0
