"""The page and the text of a load run."""

from __future__ import annotations

import re
from base64 import b64encode
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


def test_the_text_shows_responses_latencies_goodput_lateness_and_processes_and_ends_with_the_verdict() -> None:
    text = report.text(good_record())
    lines = text.splitlines()
    assert lines[0] == (
        "300 requests in 30.0 s: issued 3.33/s, refused 6.67/s, 0 responses of 5xx, 0 requests without a response"
    )
    cells = [line.split() for line in lines]
    assert ["SOLD_OUT", "200", "6.7"] in cells
    assert ["issue", "300", *["20.0"] * 5] in cells
    assert ["1", "150", *["0.0"] * 5] in cells
    assert ["web", "50", "50", "200", "200", "200"] in cells
    assert lines[-1] == "every promise was kept"


def test_the_limits_that_were_found_stand_above_the_verdict() -> None:
    record = {**good_record(), "limit": ["One process of web used 95 % of a processor."]}
    assert report.text(record).splitlines()[-3] == "limit: One process of web used 95 % of a processor."


def test_the_page_holds_its_plots_and_needs_no_other_file(tmp_path: Path) -> None:
    plots = [tmp_path / "answers.png", tmp_path / "memory.png"]
    for number, plot in enumerate(plots):
        plot.write_bytes(b"\x89PNG" + bytes([number]))
    shown = report.write_page(tmp_path, good_record(), plots).read_text(encoding="utf-8")
    for plot in plots:
        assert shown.count(f"data:image/png;base64,{b64encode(plot.read_bytes()).decode()}") == 1
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", shown)
    assert "http://" not in shown
