"""The unguessable code of an issuance."""

from __future__ import annotations

import secrets

# Digits and capitals without 0/O and 1/I/L, which sound or look alike.
ALPHABET = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
GROUPS = 5
GROUP_LENGTH = 4  # 20 characters of 31: 20 · log2(31) = 99 bits

_LENGTH = GROUPS * GROUP_LENGTH
_HOW_MANY = len(ALPHABET) ** _LENGTH


def new_code() -> str:
    """A new code such as `7KQM-2XWD-…`, from the operating system's random source."""
    # One number for all characters: asking for each of them costs more than the rest of an attempt's checks.
    number = secrets.randbelow(_HOW_MANY)
    letters = []
    for _ in range(_LENGTH):
        number, index = divmod(number, len(ALPHABET))
        letters.append(ALPHABET[index])
    return "-".join("".join(letters[at : at + GROUP_LENGTH]) for at in range(0, _LENGTH, GROUP_LENGTH))
