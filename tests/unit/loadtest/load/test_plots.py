"""The plots of a load run."""

from __future__ import annotations

from pathlib import Path

from loadtest.load import plots, report
from tests.support.loadrun import good_record


def test_the_plots_are_also_drawn_for_a_run_without_results(tmp_path: Path) -> None:
    for path in plots.draw(tmp_path, good_record()):
        assert path.read_bytes().startswith(b"\x89PNG")
    nothing = {**good_record(), "seconds": [], "usage": []}
    assert len(plots.draw(tmp_path, nothing)) == 4
    shown = report.write_page(tmp_path, good_record(), [tmp_path / name for name in plots.PLOTS]).read_text()
    assert shown.count("data:image/png;base64,") == 4
    assert "http://" not in shown
