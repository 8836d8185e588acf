"""What a load run writes: the record as it is documented, and the table of results."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import jsonschema_rs

from loadtest.load import record
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


def test_a_record_without_a_field_or_with_a_wrong_one_breaks_the_schema() -> None:
    documented = jsonschema_rs.validator_for(SCHEMA)
    documented.validate(good_record())
    for name in good_record():
        lacking = {key: value for key, value in good_record().items() if key != name}
        assert not documented.is_valid(lacking), name
    assert not documented.is_valid({**good_record(), "schema": 2})
    assert not documented.is_valid({**good_record(), "verdict": {"kept": "yes", "checks": []}})
