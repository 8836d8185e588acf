"""Writes the figures of a result into docs/performance.md, between markers; the other text stays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loadtest.bench import tables
from loadtest.results import files
from loadtest.results.machine import in_words
from loadtest.results.tables import as_markdown
from loadtest.testbed.service import ROOT

REFERENCE = ROOT / "loadtest" / "bench" / "reference.json"
DOCUMENT = ROOT / "docs" / "performance.md"


def publish(result: Mapping[str, Any]) -> None:
    """Make a result the reference, and write its figures into the documentation."""
    text = filled(DOCUMENT.read_text(encoding="utf-8"), result)
    files.write(REFERENCE, result)
    DOCUMENT.write_text(text, encoding="utf-8")


def filled(text: str, result: Mapping[str, Any]) -> str:
    """Return a document with this result's figures in its blocks.

    Args:
        text: the document.
        result: of all parts.

    Raises:
        ValueError: the document lacks a block, or has one without figures in this result.
    """
    run = f"Version {result['version']} ({result['revision']}), {result['began_at']}, {result['rounds']} rounds of"
    blocks = {"machine": f"{run} {result['seconds']} s a turn.\n{in_words(result['machine'])}."}
    for part in dict.fromkeys(group["part"] for group in result["groups"]):
        groups = [group for group in result["groups"] if group["part"] == part]
        blocks[part] = "\n\n".join(
            f"**{group['name'].capitalize()}**\n\n{as_markdown(tables.figures_of(group))}" for group in groups
        )
        if part == "core":
            blocks["processes"] = as_markdown(tables.processes_of(groups[0]))
    return files.filled(text, blocks)
