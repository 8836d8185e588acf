"""What a load run writes: the record as it is documented, the table of results, plots, page and text."""

from __future__ import annotations

import csv
import gzip
import json
from itertools import accumulate
from pathlib import Path
from statistics import quantiles

import jsonschema_rs
import pytest

from loadtest.load import figures, plots, record, report
from loadtest.results.machine import shown_settings
from tests.support.loadrun import good_record, good_results
from tests.support.servers import ROOT

SCHEMA = json.loads((ROOT / "docs/load-record.schema.json").read_text())


def test_every_field_of_the_record_is_in_the_schema_and_in_the_page_about_it() -> None:
    text = (ROOT / "docs/load-record.md").read_text()
    assert set(good_record()) == set(SCHEMA["properties"])
    assert [name for name in SCHEMA["properties"] if f"`{name}`" not in text] == []
    assert [name for name in record.COLUMNS if f"`{name}`" not in text] == []
    assert f"now {record.SCHEMA}." in text
    for name, part in good_record().items():
        if isinstance(part, dict) and "properties" in SCHEMA["properties"][name]:
            assert set(part) == set(SCHEMA["properties"][name]["properties"]), name


def test_all_results_are_written_without_tokens_and_codes(tmp_path: Path) -> None:
    good = good_record()
    record.write(tmp_path, good, good_results())
    assert json.loads((tmp_path / record.RECORD).read_text()) == good
    with gzip.open(tmp_path / record.ANSWERS, "rt") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(good_results())
    assert (rows[0]["user"], rows[0]["code"], float(rows[0]["latency_s"])) == ("user-0", "ISSUED", 0.02)
    assert not any("code-" in value for row in rows for value in row.values())


def test_secrets_and_addresses_are_not_among_the_settings() -> None:
    shown = shown_settings(
        {
            "COUPON_JWT_SECRET": "s",
            "COUPON_SECRET_KEY": "k",
            "COUPON_RQ_URL": "redis://:p@h",
            "COUPON_LIMIT_USER": "5/minute",
        }
    )
    assert shown == {"COUPON_LIMIT_USER": "5/minute"}


def test_the_plots_are_also_drawn_for_a_run_without_results(tmp_path: Path) -> None:
    for path in plots.draw(tmp_path, good_record()):
        assert path.read_bytes().startswith(b"\x89PNG")
    nothing = {**good_record(), "seconds": [], "usage": []}
    assert len(plots.draw(tmp_path, nothing)) == 4
    shown = report.write_page(tmp_path, good_record(), [tmp_path / name for name in plots.PLOTS]).read_text()
    assert shown.count("data:image/png;base64,") == 4
    assert "http://" not in shown


def test_the_four_percentiles_are_those_of_the_standard_library() -> None:
    latencies_s = [number / 1000 for number in range(1, 3001)]
    cuts = quantiles([1000 * value for value in latencies_s], n=1000, method="inclusive")
    assert figures.percentiles_ms(latencies_s) == pytest.approx(
        {50: cuts[499], 95: cuts[949], 99: cuts[989], 99.9: cuts[998]}
    )
    assert figures.percentiles_ms([]) == dict.fromkeys(figures.QUANTILES, 0)
    assert figures.percentiles_ms([0.2]) == dict.fromkeys(figures.QUANTILES, 200)


def test_the_histogram_gives_a_percentile_within_a_quarter() -> None:
    latencies_s = [0.001 * 1.01**number for number in range(800)]
    buckets = figures.histogram(latencies_s)
    up_to = accumulate(number for _, number in buckets)
    bound_ms = next(bucket[0] for bucket, seen in zip(buckets, up_to, strict=True) if seen >= 0.99 * len(latencies_s))
    p99_ms = figures.percentiles_ms(latencies_s)[99.0]
    assert p99_ms <= bound_ms <= 1.25 * p99_ms * 1.02


def test_issued_and_refused_are_counted_apart_and_reads_count_as_neither() -> None:
    counted = figures.answers(good_results(), 30)
    assert (counted["issued"], counted["refused"], counted["count"]) == (100, 200, 300)
    assert (counted["issued_per_s"], counted["refused_per_s"]) == (pytest.approx(3.33), pytest.approx(6.67))
    assert counted["by_code"] == {"SOLD_OUT": 200, "ISSUED": 100}


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


def test_a_record_without_a_field_or_with_a_wrong_one_breaks_the_schema() -> None:
    documented = jsonschema_rs.validator_for(SCHEMA)
    documented.validate(good_record())
    for name in good_record():
        lacking = {key: value for key, value in good_record().items() if key != name}
        assert not documented.is_valid(lacking), name
    assert not documented.is_valid({**good_record(), "schema": 2})
    assert not documented.is_valid({**good_record(), "verdict": {"kept": "yes", "checks": []}})
