"""The pages' texts: `translations.json`. The messages of outcomes are in `couponapp.web.responses`."""

from __future__ import annotations

import json
from pathlib import Path

from couponapp.web.responses import language

WORDS: dict[str, dict[str, str]] = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))


def word(key: str) -> str:
    """Return a page's text in the request's language."""
    return WORDS[key][language()]
