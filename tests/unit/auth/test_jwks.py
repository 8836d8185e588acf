"""Tokens signed by RS256, ES256 and EdDSA, verified with a key set."""

from __future__ import annotations

import base64
import functools
import http.server
import json
import select
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from couponapp.auth import jwks
from couponapp.auth.jwks import MIN_REFRESH_GAP_S, KeySet
from couponapp.auth.tokens import CachingVerifier, ExpectedClaims, KeySetVerifier
from couponapp.errors import ConfigurationError, Unauthenticated, Unavailable
from couponapp.local.postgres import free_port
from tests.support.bearers import ACCEPTED, REFUSED, SECRET, ask, bad_tokens, by_hand, client_of, good, hs256
from tests.support.clock import Clock
from tests.support.servers import wait_until

GIVE_UP_S = 20.0


@functools.cache
def private_key(algorithm: str, number: int = 1) -> Any:
    """A key for an algorithm; another one for another number."""
    if algorithm == "RS256":
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key(ec.SECP256R1()) if algorithm == "ES256" else ed25519.Ed25519PrivateKey.generate()


def jwk(algorithm: str, number: int = 1, **members: Any) -> dict[str, Any]:
    """The public half as a key set has it; its id is the algorithm and the number."""
    makers: dict[str, Any] = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}
    public: dict[str, Any] = makers[algorithm].to_jwk(private_key(algorithm, number).public_key(), as_dict=True)
    return {**public, "kid": f"{algorithm}-{number}", **members}


def signed(algorithm: str, number: int = 1, *, alg: str = "", kid: str | None = "", **changes: Any) -> str:
    """A token signed with the key of that algorithm and number."""
    key_id = f"{algorithm}-{number}" if kid == "" else kid
    headers = {"kid": key_id} if key_id is not None else None
    return jwt.encode(good(**changes), private_key(algorithm, number), algorithm=alg or algorithm, headers=headers)


ALGORITHMS = ["RS256", "ES256", "EdDSA"]


def document(*keys: Any) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


ALL_KEYS = [jwk(algorithm) for algorithm in ALGORITHMS]


class KeyServer:
    """A web server on loopback that serves a key set, or whatever else it is told to."""

    def __init__(self, port: int = 0) -> None:
        self.body = document(*ALL_KEYS)
        self.raw = b""  # instead of an HTTP answer
        self.hits = 0
        self.hanging = threading.Event()  # somebody waits for an answer that does not come
        self.release: threading.Event | None = None
        self.connection: socket.socket | None = None
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.hits += 1
                if outer.release is not None:
                    outer.connection = self.connection
                    outer.hanging.set()
                    outer.release.wait(GIVE_UP_S)
                with suppress(OSError):
                    self.wfile.write(outer.raw or self.answer())

            def answer(self) -> bytes:
                head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(outer.body)}\r\n\r\n"
                return head.encode() + outer.body

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # named so there
                """Say nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/keys.json"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def somebody_still_waits(self) -> bool:
        """The connection that hangs has not been given up at the other end."""
        assert self.connection is not None
        return not select.select([self.connection], [], [], 0)[0]

    def close(self) -> None:
        if self.release is not None:
            self.release.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def key_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = KeyServer()
    yield server
    server.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def verifier(source: str, clock: Callable[[], float]) -> CachingVerifier:
    return CachingVerifier(KeySetVerifier(KeySet(source, clock=clock), ExpectedClaims(audience="coupon", issuer="")))


def accepts(verifier: CachingVerifier, token: str) -> bool:
    try:
        return verifier.verify(token) == "kim"
    except (Unauthenticated, Unavailable):
        return False


def test_keys_from_a_file_verify_all_three_algorithms(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_bytes(document(*ALL_KEYS))
    client = client_of(COUPON_JWT_SECRET="", COUPON_JWT_JWKS=str(tmp_path / "keys.json"))
    for algorithm in ALGORITHMS:
        assert ask(client, f"Bearer {signed(algorithm)}") == ACCEPTED, algorithm
        assert ask(client, f"Bearer {signed(algorithm, 2, kid=f'{algorithm}-1')}") == REFUSED, algorithm


def test_keys_from_a_url_verify_all_three_algorithms(key_server: KeyServer) -> None:
    client = client_of(COUPON_JWT_SECRET="", COUPON_JWT_JWKS=key_server.url)
    for algorithm in ALGORITHMS:
        assert ask(client, f"Bearer {signed(algorithm)}") == ACCEPTED, algorithm
        assert ask(client, f"Bearer {signed(algorithm, 2, kid=f'{algorithm}-1')}") == REFUSED, algorithm
    assert key_server.hits == 1


def test_claims_are_checked_with_a_key_set_too(key_server: KeyServer, clock: Clock) -> None:
    keys = verifier(key_server.url, clock)
    bad: list[dict[str, Any]] = [{"exp": 1}, {"exp": None}, {"aud": "other"}, {"aud": None}, {"sub": None}, {"sub": ""}]
    for changes in bad:
        assert not accepts(keys, signed("ES256", **changes)), changes
    assert accepts(keys, signed("ES256"))


def test_a_public_key_is_never_taken_for_a_shared_secret(tmp_path: Path) -> None:
    """Key confusion: HS256 «signed» with what everybody may know."""
    (tmp_path / "keys.json").write_bytes(document(*ALL_KEYS))
    client = client_of(COUPON_JWT_SECRET="", COUPON_JWT_JWKS=str(tmp_path / "keys.json"))
    for algorithm in ALGORITHMS:
        public = private_key(algorithm).public_key()
        pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        for key in (pem, pem.strip(), json.dumps(jwk(algorithm)).encode()):
            for claimed in ("HS256", algorithm):
                forged = by_hand({"alg": claimed, "kid": f"{algorithm}-1"}, good(), key)
                assert ask(client, f"Bearer {forged}") == REFUSED, (algorithm, claimed)


def test_a_token_cannot_choose_how_its_key_is_interpreted(key_server: KeyServer, clock: Clock) -> None:
    keys = verifier(key_server.url, clock)
    for alg in ("RS512", "PS256"):
        assert not accepts(keys, signed("RS256", alg=alg)), alg
    for header in ({"alg": "none", "kid": "RS256-1"}, {"alg": ["RS256"]}, {"alg": "RS256", "kid": ["RS256-1"]}, {}):
        assert not accepts(keys, by_hand(header, good(), None)), header
    for token in bad_tokens().values():
        assert not accepts(keys, token)
    assert not accepts(keys, signed("RS256", kid="ES256-1"))
    assert not accepts(keys, signed("RS256", kid=None))


def test_a_key_inside_a_token_is_not_used(key_server: KeyServer, clock: Clock) -> None:
    keys = verifier(key_server.url, clock)
    attacker = KeyServer()
    try:
        attacker.body = document(jwk("RS256", 2))
        headers = {"kid": "RS256-2", "jwk": jwk("RS256", 2), "jku": attacker.url, "x5u": attacker.url}
        forged = jwt.encode(good(), private_key("RS256", 2), algorithm="RS256", headers=headers)
        assert not accepts(keys, forged)
        assert attacker.hits == 0
    finally:
        attacker.close()


def test_keys_for_other_purposes_are_skipped(key_server: KeyServer, clock: Clock) -> None:
    secret = {"kty": "oct", "kid": "secret", "k": base64.urlsafe_b64encode(SECRET).decode()}
    encryption = jwk("RS256", 2, use="enc")
    key_server.body = document(secret, encryption, jwk("ES256", 2, alg="ES512"), {"kty": "new"}, "text", *ALL_KEYS)
    keys = verifier(key_server.url, clock)
    assert not accepts(keys, hs256(good(), kid="secret"))
    assert not accepts(keys, signed("RS256", 2))
    assert not accepts(keys, signed("ES256", 2))
    assert accepts(keys, signed("ES256"))


BROKEN_KEYS: list[dict[str, Any]] = [
    {"kty": "RSA", "kid": "x"},
    {"kty": "RSA", "kid": "x", "n": 5, "e": "AQAB"},
    {"kty": "RSA", "kid": "x", "n": "!", "e": "é"},
    {"kty": "EC", "kid": "x", "crv": "P-256", "x": "AA", "y": "AA"},
    {"kty": "EC", "kid": "x", "crv": ["P-256"], "x": None, "y": {}},
    {"kty": "OKP", "kid": "x", "crv": "Ed25519", "x": "AA"},
    {"kty": "OKP", "kid": "x", "crv": "X25519", "x": "AA"},
    jwk("ES256", 2, kid=["a"]),
    jwk("ES256", 2, kid=5),
]


@pytest.mark.parametrize("number", range(len(BROKEN_KEYS)))
def test_one_broken_key_does_not_invalidate_a_set(tmp_path: Path, clock: Clock, number: int) -> None:
    (tmp_path / "keys.json").write_bytes(document(BROKEN_KEYS[number], *ALL_KEYS))
    assert accepts(verifier(str(tmp_path / "keys.json"), clock), signed("ES256"))


@pytest.mark.parametrize(
    "content",
    [b"", b"no JSON", b"[]", b"{}", b'{"keys": {}}', b'{"keys": []}', b'{"keys": [1]}', b"\xff", b"[" * 100_000],
)
def test_a_file_that_is_no_key_set_stops_the_start(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError) as error:
        client_of(COUPON_JWT_SECRET="", COUPON_JWT_JWKS=str(path))
    assert str(error.value).startswith("COUPON_JWT_JWKS: cannot use ")
    assert "\n" not in str(error.value)


def test_a_missing_file_stops_the_start(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.json"):
        with pytest.raises(ConfigurationError, match=r"^COUPON_JWT_JWKS: cannot use "):
            client_of(COUPON_JWT_SECRET="", COUPON_JWT_JWKS=str(path))


def unknown(number: int) -> str:
    return signed("ES256", kid=f"unknown-{number}")


def test_200_requests_with_unknown_keys_fetch_the_set_once_more_at_most(key_server: KeyServer, clock: Clock) -> None:
    keys = verifier(key_server.url, clock)
    clock.move(MIN_REFRESH_GAP_S)
    with ThreadPoolExecutor(8) as crowd:
        assert not any(crowd.map(lambda number: accepts(keys, unknown(number)), range(200)))
    assert key_server.hits <= 2
    # The negative control: with time in between, each is worth a look.

    def asked_again() -> bool:
        clock.move(MIN_REFRESH_GAP_S)
        return not accepts(keys, unknown(1)) and key_server.hits >= 5

    wait_until(asked_again, timeout_s=GIVE_UP_S, what="the set is fetched again and again")


def test_requests_with_unknown_keys_are_unauthenticated_over_http(key_server: KeyServer) -> None:
    client = client_of(COUPON_JWT_SECRET="", COUPON_JWT_JWKS=key_server.url)
    for number in range(20):
        assert ask(client, f"Bearer {unknown(number)}") == REFUSED
    assert key_server.hits <= 2


def test_a_request_does_not_wait_for_a_key_server_that_hangs(key_server: KeyServer, clock: Clock) -> None:
    keys = verifier(key_server.url, clock)
    key_server.release = threading.Event()
    clock.move(MIN_REFRESH_GAP_S)
    assert not accepts(keys, unknown(1))
    assert key_server.hanging.wait(GIVE_UP_S)
    # Our side still waits for the answer, in the background, and requests are answered meanwhile.
    assert key_server.somebody_still_waits()
    assert accepts(keys, signed("ES256"))
    assert not accepts(keys, unknown(2))
    assert key_server.somebody_still_waits()


def test_a_new_key_is_picked_up_when_the_first_token_names_it(key_server: KeyServer, clock: Clock) -> None:
    keys = verifier(key_server.url, clock)
    key_server.body = document(jwk("ES256", 2))
    assert not accepts(keys, signed("ES256", 2))  # the last look was a moment ago
    clock.move(MIN_REFRESH_GAP_S)
    wait_until(lambda: accepts(keys, signed("ES256", 2)), timeout_s=GIVE_UP_S, what="the new key is known")
    assert not accepts(keys, signed("ES256", 1))
    assert key_server.hits == 2


def test_a_withdrawn_key_is_forgotten_without_a_request_for_it(
    key_server: KeyServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "REFRESH_EVERY_S", 0.01)
    keys, token = verifier(key_server.url, clock), signed("ES256")
    assert accepts(keys, token)
    key_server.body = document(jwk("RS256"))
    wait_until(lambda: not accepts(keys, token), timeout_s=GIVE_UP_S, what="the old key is forgotten")
    assert accepts(keys, signed("RS256"))


def test_a_url_that_is_down_at_the_start_is_used_once_it_answers(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    port = free_port()
    keys = verifier(f"http://127.0.0.1:{port}/keys.json", clock)
    with pytest.raises(Unavailable):  # nobody can be told from anybody: that is no 401
        keys.verify(signed("ES256"))
    server = KeyServer(port)
    try:
        clock.move(MIN_REFRESH_GAP_S)
        wait_until(lambda: accepts(keys, signed("ES256")), timeout_s=GIVE_UP_S, what="the keys are known")
    finally:
        server.close()


GARBAGE: dict[str, bytes] = {
    "no HTTP": b"garbage\r\n\r\n",
    "nothing": b"\r\n",
    "a 500": b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
    "a 404": b"HTTP/1.1 404 Oops\r\nContent-Length: 0\r\n\r\n",
    "a redirect to a file": b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n",
    "half an answer": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{",
    "a broken chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "endless headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1_000 + b"\r\n",
    "a page": b"HTTP/1.1 200 OK\r\n\r\n<html>",
    "no keys": b'HTTP/1.1 200 OK\r\n\r\n{"keys": []}',
    "deep JSON": b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 100_000,
    "too much": b'HTTP/1.1 200 OK\r\n\r\n{"keys": [' + b" " * 300_000 + b"]}",
    "no UTF-8": b"HTTP/1.1 200 OK\r\n\r\n\xff",
}


def test_whatever_the_key_server_answers_the_old_keys_stay_and_the_next_good_set_is_taken(
    key_server: KeyServer, clock: Clock
) -> None:
    keys = verifier(key_server.url, clock)
    for what, raw in GARBAGE.items():
        key_server.raw, hits = raw, key_server.hits

        def asked_twice(seen: int = hits) -> bool:
            clock.move(MIN_REFRESH_GAP_S)
            return not accepts(keys, unknown(1)) and key_server.hits >= seen + 2

        wait_until(asked_twice, timeout_s=GIVE_UP_S, what=f"after {what} the set is asked for again")
        assert accepts(keys, signed("ES256")), what
    key_server.raw, key_server.body = b"", document(jwk("ES256", 2))

    def taken() -> bool:
        clock.move(MIN_REFRESH_GAP_S)
        return accepts(keys, signed("ES256", 2))

    wait_until(taken, timeout_s=GIVE_UP_S, what="the good set is taken")


@pytest.mark.parametrize("what", GARBAGE)
def test_a_url_that_answers_garbage_at_the_start_does_not_stop_it(
    key_server: KeyServer, clock: Clock, what: str
) -> None:
    key_server.raw = GARBAGE[what]
    keys = verifier(key_server.url, clock)
    key_server.raw = b""
    with pytest.raises(Unavailable):
        keys.verify(unknown(1))
    clock.move(MIN_REFRESH_GAP_S)
    wait_until(lambda: accepts(keys, signed("ES256")), timeout_s=GIVE_UP_S, what="the keys are known")
