"""The plots of a load run."""

from __future__ import annotations

from pathlib import Path

from loadtest.load import plots, report
from tests.support.loadrun import good_record


def test_the_plots_are_also_drawn_for_a_run_without_results(tmp_path: Path) -> None:
    for record in (good_record(), {**good_record(), "seconds": [], "usage": []}):
        drawn = plots.draw(tmp_path, record)
        assert [path.name for path in drawn] == list(plots.PLOTS)
        assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)


def test_the_page_holds_its_plots_and_needs_no_other_file(tmp_path: Path) -> None:
    plots.draw(tmp_path, good_record())
    shown = report.write_page(tmp_path, good_record(), [tmp_path / name for name in plots.PLOTS]).read_text()
    assert shown.count("data:image/png;base64,") == 4
    assert "http://" not in shown
