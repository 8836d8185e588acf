"""Codes: readable aloud, and unguessable."""

from __future__ import annotations

import re
from collections import Counter

from couponapp.issuing import codes
from couponapp.issuing.codes import ALPHABET, new_code


def test_a_code_is_five_groups_of_four_characters_that_are_not_mistaken_for_each_other() -> None:
    assert not set(ALPHABET) & set("0O1IL")
    for _ in range(1_000):
        assert re.fullmatch(rf"[{ALPHABET}]{{4}}(-[{ALPHABET}]{{4}}){{4}}", new_code())


def test_every_character_is_equally_likely() -> None:
    kept = bytes(range(256)).translate(codes._LETTERS, codes._LEFT_OUT).decode()
    assert Counter(kept) == dict.fromkeys(ALPHABET, 8)
    # The negative control: without leaving any out, some would come more often than others.
    assert len(set(Counter(bytes(range(256)).translate(codes._LETTERS)).values())) > 1


def test_codes_do_not_repeat() -> None:
    assert len({new_code() for _ in range(10_000)}) == 10_000
