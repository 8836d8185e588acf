"""Tables as text and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

# Rows of cells; the first row is the heading.
Table = Sequence[Sequence[str]]


def as_text(table: Table, *, left: int = 1) -> str:
    """Return a table for the terminal.

    Args:
        table: rows of equal length.
        left: how many columns are aligned to the left; the others are aligned to the right.
    """
    widths = [max(len(row[number]) for row in table) for number in range(len(table[0]))]
    lines = (
        "  ".join(
            cell.ljust(width) if number < left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    )
    return "\n".join(line.rstrip() for line in lines)


def as_markdown(table: Table) -> str:
    """Return a table for a document."""
    rule = ["---", *["---:"] * (len(table[0]) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (table[0], rule, *table[1:]))
