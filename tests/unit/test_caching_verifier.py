"""A token is verified once, and believed no longer than it would be anyway."""

from __future__ import annotations

import pytest

from couponapp.auth.tokens import LEEWAY_S, CachingVerifier, Verified
from couponapp.errors import Unauthenticated


class Keys:
    """Counts how often it is asked; knows some tokens."""

    def __init__(self) -> None:
        self.key_version = 0
        self.known = {"token of kim": Verified("kim", 1_000)}
        self.asked = 0

    def verify(self, token: str) -> Verified:
        self.asked += 1
        if token not in self.known:
            raise Unauthenticated()
        return self.known[token]


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def remembering(keys: Keys, clock: Clock) -> CachingVerifier:
    return CachingVerifier(keys, clock=clock)


def test_a_token_that_comes_again_is_not_verified_again(remembering: CachingVerifier, keys: Keys) -> None:
    assert [remembering.verify("token of kim") for _ in range(3)] == ["kim"] * 3
    assert keys.asked == 1


def test_a_remembered_token_expires_when_it_says(remembering: CachingVerifier, clock: Clock) -> None:
    remembering.verify("token of kim")
    clock.now_s = 1_000 + LEEWAY_S - 0.001
    assert remembering.verify("token of kim") == "kim"
    clock.now_s = 1_000 + LEEWAY_S
    with pytest.raises(Unauthenticated):
        remembering.verify("token of kim")


def test_a_token_whose_key_is_gone_is_forgotten_with_it(remembering: CachingVerifier, keys: Keys) -> None:
    remembering.verify("token of kim")
    keys.known.clear()
    assert remembering.verify("token of kim") == "kim"  # nobody has said that the keys changed
    keys.key_version += 1
    with pytest.raises(Unauthenticated):
        remembering.verify("token of kim")


def test_a_refusal_is_not_remembered(remembering: CachingVerifier, keys: Keys) -> None:
    with pytest.raises(Unauthenticated):
        remembering.verify("token of lee")
    keys.known["token of lee"] = Verified("lee", 1_000)
    assert remembering.verify("token of lee") == "lee"
