"""Writes the tables of `docs/settings.md`: `make settings-doc`.

The tables are generated from the declarations in `settings.py` and the docstrings below them. They
stand between two marker lines; the prose around them is written by hand.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import re
from pathlib import Path

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
    help_texts = read_help_texts()
    for spec in settings.specs():
        if spec.name in _SECTIONS:
            lines += ["", f"### {_SECTIONS[spec.name]}", "", "| name | default | meaning |", "|---|---|---|"]
        default, parse = spec.metadata["default"], spec.metadata["parse"]
        allowed = f" Allowed: {parse.low} to {parse.high}." if isinstance(parse, parsers.Integer) else ""
        shown = f"`{default}`" if default else "unset"
        lines.append(f"| `{spec.metadata['env']}` | {shown} | {help_texts[spec.name]}{allowed} |")
    tables = "\n".join([*lines, "", ""])
    document, count = _TABLES.subn(lambda _: tables, text)
    if count != 1:
        raise ValueError("the document does not have the marker lines of the settings")
    return document


def read_help_texts() -> dict[str, str]:
    """Return the docstring below each setting, on one line, by the attribute's name.

    Python keeps no docstrings of attributes, so they are read from the source.
    """
    texts = {}
    for pair in itertools.pairwise(ast.walk(ast.parse(inspect.getsource(settings.Settings)))):
        match pair:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                texts[name] = " ".join(text.split())
    return texts


if __name__ == "__main__":
    DOCUMENT.write_text(filled(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
