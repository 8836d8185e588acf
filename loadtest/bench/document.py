"""Writes the figures of a result into docs/performance.md, between markers; the words around them stay."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from loadtest.bench import tables
from loadtest.testbed.service import ROOT

REFERENCE = ROOT / "loadtest" / "bench" / "reference.json"
DOCUMENT = ROOT / "docs" / "performance.md"
_BLOCK = re.compile(r"(<!-- figures: ([a-z]+) -->\n)(.*?)(<!-- end of figures -->)", re.DOTALL)


def filled(text: str, result: Mapping[str, Any]) -> str:
    """A document with this result's figures in its blocks.

    Args:
        text: the document.
        result: of a whole run.

    Raises:
        ValueError: the document has no block, or one that this result says nothing about.
    """
    return replaced(text, _blocks(result))


def replaced(text: str, blocks: Mapping[str, str]) -> str:
    """A document with the figures of its blocks replaced.

    Args:
        text: the document.
        blocks: figures, by the name of the block.

    Raises:
        ValueError: the document has no such block, or one more.
    """
    named = [found[2] for found in _BLOCK.finditer(text)]
    if missing := sorted(set(named) ^ set(blocks)):
        raise ValueError(f"blocks of figures without figures, or figures without a block: {', '.join(missing)}")
    return _BLOCK.sub(lambda found: f"{found[1]}{blocks[found[2]]}\n{found[4]}", text)


def _blocks(result: Mapping[str, Any]) -> dict[str, str]:
    blocks = {"machine": _machine(result)}
    for part in dict.fromkeys(group["part"] for group in result["groups"]):
        groups = [group for group in result["groups"] if group["part"] == part]
        blocks[part] = "\n\n".join(
            f"**{group['name'].capitalize()}**\n\n{tables.as_markdown(tables.figures_of(group))}" for group in groups
        )
        if part == "core":
            blocks["processes"] = tables.as_markdown(tables.processes_of(groups[0]))
    return blocks


def _machine(result: Mapping[str, Any]) -> str:
    return (
        f"Version {result['version']} ({result['revision']}), {result['began_at']}, {result['rounds']} rounds of "
        f"{result['seconds']} s a turn.\n{tables.in_words(result['machine'])}."
    )
