"""Every text of the pages is there in both languages, and none is left over."""

from __future__ import annotations

import re

import pytest
from flask import Flask

from couponapp.issuing.catalogue import Status
from couponapp.web.responses import LANGUAGES
from couponapp.web.translations import WORDS, word
from tests.support.servers import ROOT

TEMPLATES = sorted((ROOT / "couponapp/web/templates").rglob("*.html"))
CODE = sorted((ROOT / "couponapp/web/pages").rglob("*.py"))


def used() -> set[str]:
    """The keys that templates and views name as they are."""
    source = "\n".join(path.read_text(encoding="utf-8") for path in [*TEMPLATES, *CODE])
    return set(re.findall(r"""\bword\(\s*["']([a-z_A-Z]+)["']\s*\)""", source))


def test_every_text_that_a_page_names_is_there() -> None:
    assert used() - set(WORDS) == set()
    assert len(used()) > 20


def test_every_status_of_a_coupon_has_a_name() -> None:
    assert {f"status_{status}" for status in Status} <= set(WORDS)


def test_every_text_is_there_in_both_languages_with_the_same_gaps() -> None:
    for key, texts in WORDS.items():
        assert set(texts) == set(LANGUAGES), key
        assert all(texts.values()), key
        assert texts["ko"].count("{}") == texts["en"].count("{}"), key
        assert texts["en"].isascii(), key


@pytest.mark.parametrize(("accepted", "expected"), [("en", "Log in"), ("ko", "로그인")])
def test_a_text_is_in_the_language_of_the_request(accepted: str, expected: str) -> None:
    with Flask("pages").test_request_context(headers={"Accept-Language": accepted}):
        assert word("log_in") == expected
