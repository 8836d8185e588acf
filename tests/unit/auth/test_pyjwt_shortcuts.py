"""The shortcut through the segments of a token accepts and refuses exactly what PyJWT does."""

from __future__ import annotations

import string
from collections.abc import Callable

import jwt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jwt.api_jws import PyJWS
from jwt.utils import base64url_encode

from couponapp.auth.pyjwt_shortcuts import Segments

Decode = Callable[[bytes, str], bytes]
_ALPHABET = (string.ascii_letters + string.digits + "-_+/=.! \n").encode()

segments = st.one_of(
    st.binary(max_size=40).map(base64url_encode),
    st.lists(st.sampled_from(_ALPHABET), max_size=12).map(bytes),
    st.binary(max_size=8),
)


def decoded(decode: Decode, segment: bytes) -> bytes | None:
    try:
        return decode(segment, "payload")
    except jwt.DecodeError:
        return None


@given(segments)
@example(b"")
@example(b"QQ")
@example(b"QR")  # the same octet as QQ, with unused bits set
@example(b"QQ==")
@example(b"QQ=")
@example(b"Q")
@example(b"QUI\n")
@example(b"+/+/")
def test_a_segment_is_decoded_as_the_library_decodes_it(segment: bytes) -> None:
    assert decoded(Segments._decode_base64url_segment, segment) == decoded(PyJWS._decode_base64url_segment, segment)


@pytest.mark.parametrize("segment", [b"QR", b"+/+/", b"Q", b"QUI\n"])
def test_a_decoder_that_accepts_more_is_caught(segment: bytes) -> None:
    def lax(segment: bytes, name: str) -> bytes:
        return jwt.utils.base64url_decode(segment.rstrip(b"\n") + b"A" * (len(segment) % 4 == 1))

    assert decoded(lax, segment) != decoded(PyJWS._decode_base64url_segment, segment)
