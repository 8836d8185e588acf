"""Results as JSON files, and their figures in documents."""

from __future__ import annotations

from pathlib import Path

from loadtest.bench import result
from loadtest.results import files
from tests.support.benchrun import good_result


def test_a_result_is_read_as_it_was_written_with_all_rounds_of_a_figure_on_one_line(tmp_path: Path) -> None:
    measured, path = good_result(), tmp_path / "deep" / "result.json"
    files.write(path, measured)
    assert result.read(path) == measured
    assert '"rates": [ 50.0, 5.0, 80.0 ]' in path.read_text()
