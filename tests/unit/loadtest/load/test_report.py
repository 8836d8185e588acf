"""The page and the text of a load run."""

from __future__ import annotations

from pathlib import Path

from loadtest.load import report
from tests.support.loadrun import good_record


def test_the_page_and_the_text_show_what_is_broken_and_escape_markup(tmp_path: Path) -> None:
    record = good_record()
    assert report.headline(record) == "every promise was kept"
    record["verdict"] = {
        "kept": False,
        "checks": [{"name": "errors", "promised": "none", "seen": "<script>", "kept": False}],
    }
    text = report.text(record)
    shown = report.write_page(tmp_path, record, []).read_text()
    assert "1 of 1 promises were broken: errors" in text
    assert "1 of 1 promises were broken: errors" in shown
    assert "&lt;script&gt;" in shown
    assert "<script>" not in shown
