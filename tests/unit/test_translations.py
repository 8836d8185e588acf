"""The pages' texts in both languages."""

from __future__ import annotations

import re
from pathlib import Path

from couponapp import web
from couponapp.web.responses import LANGUAGES
from couponapp.web.translations import WORDS

TEMPLATES = Path(web.__file__).with_name("templates")


def test_every_text_is_there_in_both_languages() -> None:
    assert [key for key, texts in WORDS.items() if set(texts) != set(LANGUAGES) or not all(texts.values())] == []


def test_every_text_that_a_page_names_exists() -> None:
    pages = "".join(path.read_text(encoding="utf-8") for path in TEMPLATES.glob("*.html"))
    named = set(re.findall(r'word\("(\w+)"\)', pages))
    assert named
    assert named <= set(WORDS)
