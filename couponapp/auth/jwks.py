"""A key set (JWKS, RFC 7517), refreshed by a background thread.

In a web process under gevent this thread is a greenlet.
"""

from __future__ import annotations

import http.client
import json
import logging
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jwt

from couponapp.errors import ConfigurationError, Unauthenticated, Unavailable

log = logging.getLogger(__name__)

KEY_SET_ALGORITHMS = ["RS256", "ES256", "EdDSA"]
# The key type of each algorithm (RFC 7518, RFC 8037). Keys are looked up by type too, so that a token
# cannot choose how its key is interpreted.
KEY_TYPE = {"RS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}

REFRESH_EVERY_S = 300.0
# An unknown key id may mean that the shop has rotated its keys. The gap keeps an attacker from
# triggering a refresh with every request.
MIN_REFRESH_GAP_S = 10.0
UNKNOWN_KEY_WAIT_S = 0.15
FETCH_TIMEOUT_S = 3.0
MAX_KEY_SET_BYTES = 256 * 1024
CHUNK_BYTES = 16 * 1024
# What reading a key set can raise. None of it may end the refreshing thread.
_READ_ERRORS = (OSError, ValueError, RecursionError, http.client.HTTPException)


class KeySet:
    """The keys of a JWKS file or URL, kept in memory."""

    def __init__(self, source: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the keys once; later refreshes happen in the background.

        Args:
            source: a path, or a URL that begins with https:// or http://.
            clock: monotonic, in seconds.

        Raises:
            ConfigurationError: the file cannot be read or is not a key set. A URL that does not
                answer is tried again in the background.
        """
        self._source = source
        self._clock = clock
        self._keys: Mapping[tuple[str | None, str], Any] = {}
        self.key_version = 0
        self._changed = threading.Condition()
        self._refreshing = False  # requested or under way
        self._next_refresh_s = clock() + MIN_REFRESH_GAP_S
        self._thread: threading.Thread | None = None
        try:
            self._keys = self._read()
        except _READ_ERRORS as error:
            if not _is_url(source):
                raise ConfigurationError(f"COUPON_JWT_JWKS: cannot use {source}: {error}") from error
            log.warning("key set: %s does not answer (%s); trying again", source, error)

    def key(self, key_id: str | None, algorithm: str) -> Any:
        """Return the key with an id for an algorithm.

        An unknown id requests a refresh and waits up to `UNKNOWN_KEY_WAIT_S` for it. There is at most
        one such refresh in `MIN_REFRESH_GAP_S`; requests in between do not wait.

        Raises:
            Unauthenticated: there is no such key.
            Unavailable: no key set has been read yet, so no token can be verified.
        """
        wanted = (key_id, KEY_TYPE[algorithm])
        with self._changed:
            self._ensure_thread()
            if wanted not in self._keys and self._request_refresh():
                self._changed.wait_for(lambda: wanted in self._keys or not self._refreshing, UNKNOWN_KEY_WAIT_S)
        try:
            return self._keys[wanted]
        except KeyError:
            if not self._keys:
                raise Unavailable("no key set has been read yet") from None
            raise Unauthenticated() from None

    def _request_refresh(self) -> bool:
        """Request a refresh unless the last one is too recent; return whether one is requested or under way."""
        if not self._refreshing and self._clock() >= self._next_refresh_s:
            self._next_refresh_s = self._clock() + MIN_REFRESH_GAP_S
            self._refreshing = True
            self._changed.notify_all()
        return self._refreshing

    def _ensure_thread(self) -> None:
        # At first use and not on construction: a thread does not survive gunicorn's fork.
        if self._thread is None:
            self._thread = threading.Thread(target=self._refresh_forever, name="key-set", daemon=True)
            self._thread.start()

    def _refresh_forever(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._refreshing, REFRESH_EVERY_S if self._keys else MIN_REFRESH_GAP_S)
                self._refreshing = True
            try:
                self._keys = self._read()
                self.key_version += 1
            except _READ_ERRORS as error:
                log.warning("key set: keeping the old keys, %s: %s", self._source, error)
            finally:
                with self._changed:
                    self._refreshing = False
                    self._changed.notify_all()

    def _read(self) -> Mapping[tuple[str | None, str], Any]:
        document = json.loads(self._read_bytes())
        if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
            raise ValueError("not a key set: it has no list «keys»")
        return _parse_keys(document["keys"])

    def _read_bytes(self) -> bytes:
        if not _is_url(self._source):
            return Path(self._source).read_bytes()
        with urllib.request.urlopen(self._source, timeout=FETCH_TIMEOUT_S) as response:  # noqa: S310  # http(s): see _is_url
            # The timeout applies to each read: a server that sends a byte now and then needs a bound too.
            give_up_s, body = time.monotonic() + FETCH_TIMEOUT_S, b""
            while part := response.read1(CHUNK_BYTES):
                body += part
                if len(body) > MAX_KEY_SET_BYTES:
                    raise ValueError(f"larger than {MAX_KEY_SET_BYTES} bytes")
                if time.monotonic() > give_up_s:
                    raise TimeoutError("sent too slowly")
            return body


def _parse_keys(entries: list[Any]) -> dict[tuple[str | None, str], Any]:
    keys: dict[tuple[str | None, str], Any] = {}
    for entry in entries:
        # A set may also hold keys for other purposes and of other types. A shared secret («oct») in a
        # public key set is a mistake and is skipped like them.
        if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
            continue
        algorithm = next((a for a, kty in KEY_TYPE.items() if kty == entry.get("kty")), None)
        key_id = entry.get("kid")
        if algorithm is None or entry.get("alg", algorithm) != algorithm or not isinstance(key_id, str | None):
            continue
        try:
            key = jwt.PyJWK(entry, algorithm).key
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            log.warning("key set: leaving out key %r: %s", key_id, error)
            continue
        keys[(key_id, entry["kty"])] = key
    if not keys:
        raise ValueError("no key for " + ", ".join(KEY_SET_ALGORITHMS))
    return keys


def _is_url(source: str) -> bool:
    return source.startswith(("https://", "http://"))
