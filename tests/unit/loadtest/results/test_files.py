"""Results as JSON files, and their figures in documents."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtest.bench import result
from loadtest.results import files
from tests.support.benchrun import good_result


def test_a_result_is_read_as_it_was_written_with_all_rounds_of_a_figure_on_one_line(tmp_path: Path) -> None:
    measured, path = good_result(), tmp_path / "deep" / "result.json"
    files.write(path, measured)
    assert result.read(path) == measured
    assert '"rates": [ 50.0, 5.0, 80.0 ]' in path.read_text()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "no JSON"),
        ("[]", "no record with schema 3"),
        ('{"schema": 2, "figures": []}', "no record with schema 3"),
        ('{"schema": 3}', "no record with schema 3"),
    ],
)
def test_what_is_no_result_is_refused_in_one_line_that_names_the_file(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=said) as error:
        files.read(path, what="record", schema=3, needs="figures")
    assert str(error.value).startswith(f"{path}: ")


def test_a_figure_that_json_cannot_hold_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        files.write(tmp_path / "result.json", {"rate": float("nan")})
    assert not (tmp_path / "result.json").exists()


def test_only_what_stands_between_the_marker_lines_is_replaced() -> None:
    text = "above\n<!-- figures: one -->\nold\n<!-- end of figures -->\nbelow \\1\n"
    new = r"| \1 | new |"
    assert files.filled(text, {"one": new}) == text.replace("old", new)
    assert files.filled(files.filled(text, {"one": "other"}), {"one": new}) == text.replace("old", new)


def test_a_block_without_figures_and_figures_without_a_block_are_refused_by_name() -> None:
    text = "<!-- figures: one -->\n<!-- end of figures -->\n"
    for blocks in ({}, {"one": "", "two": ""}, {"two": ""}):
        with pytest.raises(ValueError, match="one" if "one" not in blocks else "two"):
            files.filled(text, blocks)
