"""The plots of a load run."""

from __future__ import annotations

from pathlib import Path

from loadtest.load import plots
from tests.support.loadrun import good_record


def test_the_plots_are_also_drawn_for_a_run_without_results(tmp_path: Path) -> None:
    for record in (good_record(), {**good_record(), "seconds": [], "usage": []}):
        drawn = plots.draw(tmp_path, record)
        assert [path.name for path in drawn] == list(plots.PLOTS)
        assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)
