"""The unguessable code of an issuance."""

from __future__ import annotations

import secrets

# Digits and capitals without 0/O and 1/I/L, which sound or look alike.
ALPHABET = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
GROUPS = 5
GROUP_LENGTH = 4  # 20 characters of 31: 20 · log2(31) = 99 bits


def new_code() -> str:
    """A new code such as `7KQM-2XWD-…`, from the operating system's random source."""
    return "-".join("".join(secrets.choice(ALPHABET) for _ in range(GROUP_LENGTH)) for _ in range(GROUPS))
