"""Results as JSON files, and their figures in the documentation between markers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_NUMBERS = re.compile(r"\[[0-9.,e+\s-]*\]")
_BLOCK = re.compile(r"(<!-- figures: ([a-z]+) -->\n)(.*?)(<!-- end of figures -->)", re.DOTALL)


def write(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result as JSON; its directory is created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, ensure_ascii=False, indent=1, allow_nan=False)
    # A list of numbers on one line: people read the differences between two such files.
    text = _NUMBERS.sub(lambda numbers: " ".join(numbers[0].split()), text)
    path.write_text(text + "\n", encoding="utf-8")


def read(path: Path, *, what: str, schema: int, needs: str) -> dict[str, Any]:
    """Read a result.

    Args:
        path: the file.
        what: what it should be, in words.
        schema: the version that is understood.
        needs: a field that each of its kind has.

    Raises:
        ValueError: it is something else, or of another schema; says so.
        OSError: it cannot be read.
    """
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: no JSON: {error}") from error
    if not isinstance(written, dict) or written.get("schema") != schema or needs not in written:
        raise ValueError(f"{path}: no {what} with schema {schema}")
    return written


def filled(text: str, blocks: Mapping[str, str]) -> str:
    """Return a document with the figures of its blocks replaced.

    Args:
        text: the document.
        blocks: figures by name of the block.

    Raises:
        ValueError: the document lacks one of these blocks, or has another one.
    """
    named = [found[2] for found in _BLOCK.finditer(text)]
    if missing := sorted(set(named) ^ set(blocks)):
        raise ValueError(f"blocks of figures without figures, or figures without a block: {', '.join(missing)}")
    return _BLOCK.sub(lambda found: f"{found[1]}{blocks[found[2]]}\n{found[4]}", text)
