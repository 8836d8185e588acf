"""The tables of `docs/settings.md` hold what the settings declare."""

from __future__ import annotations

import re

import pytest

from couponapp.config import settings
from couponapp.config.document import DOCUMENT, filled, read_help_texts

SPECS = {str(spec.metadata["env"]): spec for spec in settings.specs()}


def test_the_documentation_holds_what_the_settings_declare() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert filled(text) == text, "run make settings-doc"


def test_every_setting_is_documented_once_with_its_default_and_nothing_else_is() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| (.*?) \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    declared = ((name, spec.metadata["default"]) for name, spec in SPECS.items())
    assert rows == [(name, f"`{default}`" if default else "unset") for name, default in declared]


@pytest.mark.parametrize(
    ("written", "changed"),
    [
        ("| `30000/minute` |", "| `3/minute` |"),
        ("anybody may log in", "nobody may log in"),
        ("Allowed: 1 to 65535.", "Allowed: 1 to 65536."),
        ("| `COUPON_TIME_ZONE` |", "| `COUPON_NO_SUCH_SETTING` |"),
    ],
)
def test_a_document_that_says_anything_else_is_caught(written: str, changed: str) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert written in text
    assert filled(text.replace(written, changed)) == text


def test_a_document_without_the_marker_lines_is_refused() -> None:
    with pytest.raises(ValueError, match="marker lines"):
        filled("# Settings\n")


def test_every_help_text_is_made_of_sentences_and_fits_into_a_cell_of_a_table() -> None:
    help_texts = read_help_texts()
    for name, spec in SPECS.items():
        text = help_texts[spec.name]
        assert re.fullmatch(r"[A-Z`][^|\n]{20,}\.", text), name
        assert not re.search(r"(?i)\b(unset|default)[^.]*\bis `[^`]+`\.", text), f"{name}: the table shows the default"
