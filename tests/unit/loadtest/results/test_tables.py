"""Tables as text and as Markdown."""

from __future__ import annotations

from loadtest.results.tables import as_markdown, as_text


def test_a_table_is_as_wide_as_its_cells_or_markdown() -> None:
    table = [["", "answers/s"], ["bare", "3"]]
    assert as_text(table) == "      answers/s\nbare          3"
    assert as_markdown(table) == "|  | answers/s |\n| --- | ---: |\n| bare | 3 |"


def test_the_first_columns_are_aligned_to_the_left_and_the_others_to_the_right_without_blanks_at_the_end() -> None:
    table = [["a", "b", "c"], ["long", "x", ""], ["y", "wide", "3"]]
    assert as_text(table).splitlines() == ["a        b  c", "long     x", "y     wide  3"]
    assert as_text(table, left=2).splitlines() == ["a     b     c", "long  x", "y     wide  3"]
