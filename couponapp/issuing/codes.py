"""The unguessable code of an issuance."""

from __future__ import annotations

import secrets

# Digits and capitals without 0/O and 1/I/L, which sound or look alike.
ALPHABET = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
GROUPS = 5
GROUP_LENGTH = 4  # 20 characters of 31: 20 · log2(31) = 99 bits

_LENGTH = GROUPS * GROUP_LENGTH
# A byte stands for a letter; 8 of the 256 are left out, because they would make some letters likelier.
_LETTERS = bytes(ALPHABET.encode()[byte % len(ALPHABET)] for byte in range(256))
_LEFT_OUT = bytes(range(256 - 256 % len(ALPHABET), 256))


def new_code() -> str:
    """Return a new code such as `7KQM-2XWD-…`, from the operating system's random source."""
    letters = b""
    while len(letters) < _LENGTH:
        letters += secrets.token_bytes(2 * _LENGTH).translate(_LETTERS, _LEFT_OUT)
    text = letters.decode()
    return "-".join(text[at : at + GROUP_LENGTH] for at in range(0, _LENGTH, GROUP_LENGTH))
