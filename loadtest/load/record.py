"""The record that a run leaves: one JSON file, as `docs/load-record.md` has it, and the raw answers beside it."""

from __future__ import annotations

import csv
import gzip
import json
import os
import platform
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from couponapp import __version__
from loadtest.driver.usage import Sample
from loadtest.load import bottleneck, figures
from loadtest.load.ledger import Ledger
from loadtest.load.promises import Check, goodput_steps
from loadtest.load.scenarios import Scenario
from loadtest.load.workers import Sent
from loadtest.testbed.service import ROOT

# A field is added without a new number; one that goes, or changes its meaning, gets one.
SCHEMA = 1
RECORD, ANSWERS = "record.json", "answers.csv.gz"
COLUMNS = ("at_s", "sent_s", "latency_s", "late_s", "kind", "attempt", "user", "status", "code")
_SECRET = ("SECRET", "URL", "JWKS")


@dataclass(frozen=True)
class Run:
    """One run as it was made.

    Attributes:
        scenario: with the options applied.
        began_at: when.
        configuration: seed, target, processes, connections, settings.
        machine: as it was before the run.
    """

    scenario: Scenario
    began_at: datetime
    configuration: dict[str, Any]
    machine: dict[str, Any]


def machine() -> dict[str, Any]:
    """What the run is measured on, and how busy that is already."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "processors": os.cpu_count() or 1,
        "memory_bytes": psutil.virtual_memory().total,
        "python": platform.python_version(),
        "load_average_before": [round(value, 2) for value in os.getloadavg()],
    }


def shown_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """The service's settings without what is secret, or only an address of this run."""
    chosen = {name: value for name, value in environ.items() if name.startswith(("COUPON_", "WEB_"))}
    return {
        name: value for name, value in sorted(chosen.items()) if not any(word in name for word in (*_SECRET, "_DIR"))
    }


def compose(
    run: Run, sent: Sent, samples: Sequence[Sample], ledger: Ledger | None, checks: Sequence[Check]
) -> dict[str, Any]:
    """The whole record.

    Args:
        run: what was asked for.
        sent: what the generator has seen.
        samples: of processors and memory.
        ledger: what the database holds, where it could be asked.
        checks: the verdict.
    """
    results, scenario = sent.results, run.scenario
    length_s = figures.length_s(results, scenario.seconds)
    lateness = figures.lateness(sent.by_process)
    return {
        "schema": SCHEMA,
        "version": __version__,
        "revision": revision(),
        "began_at": run.began_at.astimezone(UTC).isoformat(timespec="milliseconds"),
        "length_s": round(length_s, 3),
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
        "usage": [_rounded(sample) for sample in samples],
        "books": None if ledger is None else {key: value for key, value in asdict(ledger).items() if key != "owners"},
        "limit": bottleneck.tell(bottleneck.during(samples, scenario.seconds), lateness, run.machine["processors"]),
        "verdict": {"kept": all(check.kept for check in checks), "checks": [asdict(check) for check in checks]},
    }


def write(directory: Path, record: Mapping[str, Any], sent: Sent) -> None:
    """Leave the record, and every answer as one row of a table.

    Args:
        directory: exists.
        record: as composed.
        sent: for the rows. Tokens and coupon codes are not written: on a real site they are worth money.
    """
    text = json.dumps(record, ensure_ascii=False, indent=1, allow_nan=False)
    (directory / RECORD).write_text(text + "\n", encoding="utf-8")
    with gzip.open(directory / ANSWERS, "wt", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for one in sent.results:
            times = (f"{value:.6f}" for value in (one.at_s, one.sent_s, one.latency_s, one.late_s))
            rows.writerow((*times, one.kind, one.attempt, one.who, one.status, one.code))


def read(path: Path) -> dict[str, Any]:
    """A record that was written before; errors as in `read_written`."""
    return read_written(path, what="record of make load", schema=SCHEMA, needs="verdict")


def read_written(path: Path, *, what: str, schema: int, needs: str) -> dict[str, Any]:
    """What one of the commands has left as JSON.

    Args:
        path: the file.
        what: it should be, in words.
        schema: the version that is understood.
        needs: a field that each of its kind has.

    Raises:
        ValueError: it is none, or of another schema; says so.
        OSError: it cannot be read.
    """
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: no JSON: {error}") from error
    if not isinstance(written, dict) or written.get("schema") != schema or needs not in written:
        raise ValueError(f"{path}: no {what} with schema {schema}")
    return written


def _described(scenario: Scenario) -> dict[str, Any]:
    shown = {key: value for key, value in vars(scenario).items() if key not in ("promises", "environ", "mix")}
    return {**shown, "rate_per_s": round(scenario.rate_per_s, 3), "mix": dict(scenario.mix)}


def _rounded(sample: Sample) -> dict[str, Any]:
    roles = {
        role: {
            "cpu_percent": round(used.cpu_percent, 1),
            "busiest_percent": round(used.busiest_percent, 1),
            "rss_bytes": used.rss_bytes,
        }
        for role, used in sample.roles.items()
    }
    return {"at_s": round(sample.at_s, 3), "machine_percent": round(sample.machine_percent, 1), "roles": roles}


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def revision() -> str:
    """The commit that was measured, with a plus where files were changed; empty outside of a checkout."""
    try:
        command = ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
