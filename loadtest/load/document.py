"""The figures of load runs in the documentation, written from their records.

`python -m loadtest.load.document var/load/*-threefold/record.json …` writes `loadtest/load/events.json`, and the
tables of the documents from it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loadtest.bench import document, result, tables
from loadtest.bench.tables import Table
from loadtest.load import record
from loadtest.load.scenarios import ISSUE
from loadtest.testbed.service import ROOT

EVENTS = ROOT / "loadtest" / "load" / "events.json"
BLOCK = "events"
HEADINGS = {
    "README.md": ("event", "requests", "issued", "attempts p50", "p99", "5xx", "slowest notification", "promises"),
    "README.ko.md": ("이벤트", "요청", "발급", "발급 시도 p50", "p99", "5xx", "가장 늦은 알림", "약속"),
}
KEPT = {"README.md": ("all kept", "broken"), "README.ko.md": ("모두 지킴", "어김")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Take the records over; returns 2 where one of them is none."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.load.document", description=__doc__)
    parser.add_argument("records", type=Path, nargs="+", help="record.json of each event, in the order of the table")
    try:
        events = [digest(record.read(path)) for path in parser.parse_args(arguments).records]
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    result.write(EVENTS, {"events": events})
    for name in HEADINGS:
        path = ROOT / name
        path.write_text(filled(path.read_text(encoding="utf-8"), events, name), encoding="utf-8")
    return 0


def digest(written: Mapping[str, Any]) -> dict[str, Any]:
    """What the tables tell of a run.

    Args:
        written: its record.
    """
    attempts, answers, ledger = written["latencies"][ISSUE], written["answers"], written["books"] or {}
    return {
        "scenario": written["scenario"]["name"],
        "version": written["version"],
        "revision": written["revision"],
        "began_at": written["began_at"],
        "machine": result.described(written["machine"]),
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
    """A document with these figures in its block.

    Args:
        text: the document.
        events: digests.
        name: the document's, which says its language.
    """
    machine = tables.in_words(events[0]["machine"]).partition(";")[0]
    taken = f"{events[0]['began_at'][:10]}, {events[0]['revision']}; {machine}."
    return document.replaced(text, {BLOCK: f"{tables.as_markdown(_table(events, name))}\n\n{taken}"})


def _table(events: Sequence[Mapping[str, Any]], name: str) -> Table:
    rows = [list(HEADINGS[name])]
    for event in events:
        slowest_s = event["slowest_notification_s"]
        rows.append(
            [
                f"`{event['scenario']}`",
                f"{event['requests']:,} / {event['seconds']} s",
                f"{event['issued']:,}",
                f"{event['p50_ms']:.0f} ms",
                f"{event['p99_ms']:.0f} ms",
                str(event["server_errors"]),
                "–" if slowest_s is None else f"{slowest_s:.1f} s",
                KEPT[name][0 if event["kept"] else 1],
            ]
        )
    return rows


if __name__ == "__main__":
    sys.exit(main())
