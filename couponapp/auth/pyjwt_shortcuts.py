"""Two shortcuts through private parts of PyJWT 2: without them a «sold out» answer costs about a tenth more.

Both must be held against each release of PyJWT: a test compares the first with the library's own way,
and both fall back to it. The figures are in docs/decisions/0029.
"""

from __future__ import annotations

import binascii
import hmac
import re

from jwt import PyJWK, PyJWT
from jwt.algorithms import HMACAlgorithm
from jwt.api_jws import PyJWS
from jwt.utils import base64url_encode, force_bytes

_TO_BASE64 = bytes.maketrans(b"-_", b"+/")
_FROM_BASE64 = bytes.maketrans(b"+/", b"-_")
_IS_BASE64URL = re.compile(rb"[A-Za-z0-9_-]*").fullmatch


class Segments(PyJWS):
    """Decodes a canonical base64url segment at once; PyJWT inspects every character.

    A segment that is not canonical takes the library's way, which refuses it.
    """

    @staticmethod
    def _decode_base64url_segment(segment: bytes, name: str) -> bytes:
        if _IS_BASE64URL(segment) and len(segment) % 4 != 1:
            decoded = binascii.a2b_base64(segment.translate(_TO_BASE64) + b"==")
            # Bits beyond the last octet must be zero, or one token could be spelled in several ways.
            if binascii.b2a_base64(decoded, newline=False).translate(_FROM_BASE64).rstrip(b"=") == segment:
                return decoded
        return PyJWS._decode_base64url_segment(segment, name)


class PreparedSecret(HMACAlgorithm):
    """HS256 with a secret that was checked once; PyJWT checks it with every token."""

    def __init__(self, secret: bytes) -> None:
        super().__init__(HMACAlgorithm.SHA256)
        self._keyed = hmac.new(secret, digestmod="sha256")

    def prepare_key(self, key: str | bytes) -> bytes:
        """Return the key as it is."""
        return force_bytes(key)

    def check_key_length(self, key: bytes) -> None:
        """Accept the key: the settings have checked its length."""
        return

    def sign(self, msg: bytes, key: bytes) -> bytes:
        """Sign with a copy of the state that has the key in it."""
        state = self._keyed.copy()
        state.update(msg)
        return state.digest()


def library() -> PyJWT:
    """Return a PyJWT that decodes segments by the shortcut."""
    pyjwt = PyJWT()
    pyjwt._jws = Segments()
    return pyjwt


def prepared_key(secret: str) -> PyJWK:
    """Return an HS256 key with the secret prepared."""
    key = PyJWK({"kty": "oct", "k": base64url_encode(secret.encode()).decode()}, "HS256")
    key.Algorithm = PreparedSecret(secret.encode())
    return key
