"""Writes the tables of `docs/settings.md`: `make settings-doc`.

The tables are generated from the declarations in `settings.py`. They stand between two marker lines;
the prose around them is written by hand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from couponapp.config import parsers, settings

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "settings.md"
_TABLES = re.compile(r"(?<=<!-- settings: written by make settings-doc -->\n).*(?=<!-- end of settings -->)", re.DOTALL)
# Headings, by the first setting below each.
_SECTIONS = {
    "port": "Web server",
    "database_url": "PostgreSQL and Redis",
    "jwt_secret": "Tokens and sessions",
    "limit_user": "Rate limits",
    "deadline_ms": "Deadlines, pools and queues",
    "breaker_window": "Circuit breaker",
    "notify_channels": "Notifications",
    "time_zone": "Time, metrics and logs",
}


def filled(text: str) -> str:
    """Return a document with its tables of settings replaced by the current ones.

    Raises:
        ValueError: the document does not have the two marker lines.
    """
    lines = []
    for spec in settings.specs():
        if spec.name in _SECTIONS:
            lines += ["", f"### {_SECTIONS[spec.name]}", "", "| name | default | meaning |", "|---|---|---|"]
        lines.append(_row(spec.metadata))
    tables = "\n".join([*lines, "", ""])
    document, count = _TABLES.subn(lambda _: tables, text)
    if count != 1:
        raise ValueError("the document does not have the marker lines of the settings")
    return document


def _row(declared: Mapping[str, Any]) -> str:
    default, parse = declared["default"], declared["parse"]
    allowed = f" Allowed: {parse.low} to {parse.high}." if isinstance(parse, parsers.Integer) else ""
    return f"| `{declared['env']}` | {f'`{default}`' if default else 'unset'} | {declared['help']}{allowed} |"


if __name__ == "__main__":
    DOCUMENT.write_text(filled(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
