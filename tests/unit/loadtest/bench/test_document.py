"""The documentation shows the figures of the reference."""

from __future__ import annotations

from typing import Any

import pytest

from loadtest.bench import document, result


def test_the_document_gets_the_figures_and_keeps_its_text(measured: dict[str, Any]) -> None:
    parts = ("machine", "core", "processes", "guards", "growth")
    empty = "\n".join(f"About {part}.\n<!-- figures: {part} -->\n<!-- end of figures -->" for part in parts)
    once = document.filled(empty, measured)
    assert "About core.\n<!-- figures: core -->\n**Baselines**" in once
    assert "2 processors (Example 1 GHz), 8 GB" in once
    assert document.filled(once, measured) == once
    with pytest.raises(ValueError, match="figures without a block: core"):
        document.filled(empty.replace("figures: core", "figures: score"), measured)


def test_the_document_shows_the_figures_of_the_reference_and_no_others() -> None:
    text = document.DOCUMENT.read_text(encoding="utf-8")
    assert document.filled(text, result.read(document.REFERENCE)) == text
