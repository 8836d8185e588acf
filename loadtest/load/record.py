"""The record of a run: one JSON file, described in `docs/load-record.md`, and all results as a table."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

from couponapp import __version__
from loadtest.driver.generator import Result
from loadtest.driver.usage import Sample
from loadtest.load import bottleneck, figures
from loadtest.load.ledger import Ledger
from loadtest.load.promises import Check, goodput_steps
from loadtest.load.scenarios import Scenario
from loadtest.results import files
from loadtest.results.machine import revision

# A field is added without a new number; one that goes, or changes its meaning, gets one.
SCHEMA = 1
RECORD, ANSWERS = "record.json", "answers.csv.gz"
COLUMNS = ("at_s", "sent_s", "latency_s", "late_s", "kind", "attempt", "user", "status", "code")


@dataclass(frozen=True)
class Run:
    """One run, before it was judged.

    Attributes:
        scenario: with the options applied.
        began_at: wall-clock time of the start.
        configuration: seed, target, processes, connections, settings.
        machine: as it was before the run.
        sent: the results of each generator process.
        samples: of processors and memory.
        ledger: what the database holds, where it could be read.
        logs: the ends of the service's logs, by file name.
    """

    scenario: Scenario
    began_at: datetime
    configuration: dict[str, Any]
    machine: dict[str, Any]
    sent: list[list[Result]]
    samples: list[Sample]
    ledger: Ledger | None = None
    logs: dict[str, bytes] = field(default_factory=dict)

    @property
    def results(self) -> list[Result]:
        """The results of all processes, ordered by their planned moments."""
        return sorted(chain.from_iterable(self.sent), key=lambda result: result.at_s)


def compose(run: Run, checks: Sequence[Check]) -> dict[str, Any]:
    """Return the record of a run.

    Args:
        run: what was measured.
        checks: of its promises.
    """
    results, scenario, ledger = run.results, run.scenario, run.ledger
    lateness = figures.lateness(run.sent)
    during = bottleneck.during(run.samples, scenario.seconds)
    return {
        "schema": SCHEMA,
        "version": __version__,
        "revision": revision(),
        "began_at": run.began_at.astimezone(UTC).isoformat(timespec="milliseconds"),
        "length_s": round(max([scenario.seconds, *(result.answered_s for result in results)]), 3),
        "scenario": _described(scenario),
        "configuration": run.configuration,
        "machine": run.machine,
        "arrivals": {
            "planned": sum(1 for result in results if result.attempt == 1),
            "asked_again": sum(1 for result in results if result.attempt > 1),
            "by_kind": dict(Counter(result.kind for result in results).most_common()),
            "users": len({result.who for result in results}),
        },
        "answers": figures.answers(results, scenario.seconds),
        "goodput": [
            {**asdict(step), "good_per_s": round(figures.goodput_per_s(results, step), 2)}
            for step in goodput_steps(scenario)
        ],
        "latencies": figures.latencies(results),
        "seconds": figures.by_second(results),
        "generator": lateness,
        "usage": [asdict(sample) for sample in run.samples],
        "books": None if ledger is None else {key: value for key, value in asdict(ledger).items() if key != "owners"},
        "limit": bottleneck.limits(during, lateness, run.machine["processors"]),
        "verdict": {"kept": all(check.kept for check in checks), "checks": [asdict(check) for check in checks]},
    }


def write(directory: Path, record: Mapping[str, Any], results: Sequence[Result]) -> None:
    """Write the record, and every result as one row of a table.

    Args:
        directory: exists.
        record: from `compose`.
        results: Tokens and coupon codes are not written: on a real site they are worth money.
    """
    files.write(directory / RECORD, record)
    with gzip.open(directory / ANSWERS, "wt", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for one in results:
            times = (f"{value:.6f}" for value in (one.at_s, one.sent_s, one.latency_s, one.late_s))
            rows.writerow((*times, one.kind, one.attempt, one.who, one.status, one.code))


def read(path: Path) -> dict[str, Any]:
    """Read a record; errors as in `loadtest.results.files.read`."""
    return files.read(path, what="record of make load", schema=SCHEMA, needs="verdict")


def _described(scenario: Scenario) -> dict[str, Any]:
    shown = {key: value for key, value in vars(scenario).items() if key not in ("promises", "environ")}
    return {**shown, "rate_per_s": round(scenario.rate_per_s, 3), "mix": dict(scenario.mix)}
