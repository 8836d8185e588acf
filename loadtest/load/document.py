"""The figures of load runs in the documentation, from their records.

`python -m loadtest.load.document var/load/*-threefold/record.json …` writes `loadtest/load/events.json`, and the
tables of the documents from it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loadtest.load import record
from loadtest.load.scenarios import ISSUE
from loadtest.results import files
from loadtest.results.machine import in_words, publishable
from loadtest.results.tables import as_markdown
from loadtest.testbed.service import ROOT

EVENTS = ROOT / "loadtest" / "load" / "events.json"
HEADINGS = {
    "README.md": ["event", "requests", "issued", "attempts p50", "p99", "5xx", "slowest notification", "promises"],
    "README.ko.md": ["이벤트", "요청", "발급", "발급 시도 p50", "p99", "5xx", "가장 늦은 알림", "약속"],
}
KEPT = {"README.md": ("broken", "all kept"), "README.ko.md": ("어김", "모두 지킴")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Read records and write the tables; return 2 where a file is no record."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.load.document", description=__doc__)
    parser.add_argument("records", type=Path, nargs="+", help="record.json of each event, in the order of the table")
    try:
        events = [digest(record.read(path)) for path in parser.parse_args(arguments).records]
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    files.write(EVENTS, {"events": events})
    for name in HEADINGS:
        path = ROOT / name
        path.write_text(filled(path.read_text(encoding="utf-8"), events, name), encoding="utf-8")
    return 0


def digest(written: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the tables show of a run.

    Args:
        written: its record.
    """
    attempts, answers, ledger = written["latencies"][ISSUE], written["answers"], written["books"] or {}
    return {
        "scenario": written["scenario"]["name"],
        "version": written["version"],
        "revision": written["revision"],
        "began_at": written["began_at"],
        "machine": publishable(written["machine"]),
        "requests": answers["count"],
        "seconds": written["scenario"]["seconds"],
        "issued": answers["issued"],
        "server_errors": answers["server_errors"],
        "p50_ms": attempts["p50_ms"],
        "p99_ms": attempts["p99_ms"],
        "slowest_notification_s": ledger.get("slowest_notification_s") if not ledger.get("waiting") else None,
        "kept": written["verdict"]["kept"],
    }


def filled(text: str, events: Sequence[Mapping[str, Any]], name: str) -> str:
    """Return a document with these figures in its block.

    Args:
        text: the document.
        events: from `digest`.
        name: file name of the document, which gives its language.
    """
    rows = [_row(event, name) for event in events]
    machine = in_words(events[0]["machine"]).partition(";")[0]
    measured = f"{events[0]['began_at'][:10]}, {events[0]['revision']}; {machine}."
    return files.filled(text, {"events": f"{as_markdown([HEADINGS[name], *rows])}\n\n{measured}"})


def _row(event: Mapping[str, Any], name: str) -> list[str]:
    slowest_s = event["slowest_notification_s"]
    return [
        f"`{event['scenario']}`",
        f"{event['requests']:,} / {event['seconds']} s",
        f"{event['issued']:,}",
        f"{event['p50_ms']:.0f} ms",
        f"{event['p99_ms']:.0f} ms",
        str(event["server_errors"]),
        "–" if slowest_s is None else f"{slowest_s:.1f} s",
        KEPT[name][event["kept"]],
    ]


if __name__ == "__main__":
    sys.exit(main())
