"""`make bench` runs, and prints what it promises. The figures themselves are nobody's business here."""

from __future__ import annotations

import subprocess
import sys

from loadtest.bench import BARE, ISSUED, SOLD_OUT, USUAL, Seen, table
from tests.servers import ROOT


def test_the_benchmark_prints_each_variant_against_both_baselines() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "loadtest.bench", "--rounds", "1", "--seconds", "0.3"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    for variant in (BARE, ISSUED, SOLD_OUT, USUAL):
        assert any(line.startswith(variant) for line in ran.stdout.splitlines()), ran.stdout


def test_ratios_are_taken_round_by_round_and_then_the_median() -> None:
    # A round in which the machine was slow for all must not count as a slow variant.
    seen = {
        BARE: Seen([100.0, 10.0, 200.0], [1.0, 1.0, 1.0]),
        ISSUED: Seen([50.0, 5.0, 80.0], [2.0, 4.0, 2.0]),
        USUAL: Seen([25.0, 1.0, 40.0], [4.0, 4.0, 4.0]),
    }
    row = next(line for line in table(seen).splitlines() if line.startswith(ISSUED))
    assert row.split()[2:] == ["50", "5", "80", "0.50", "2.00", "2.00", "0.50"]
