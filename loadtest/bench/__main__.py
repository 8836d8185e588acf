"""`make bench`: the service against its baselines, without each guard, and as it grows, all as ratios."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from loadtest.bench import compare, document, growth, result, tables
from loadtest.bench.core import core
from loadtest.bench.guards import guards
from loadtest.bench.result import Run
from loadtest.bench.turns import Group, Seen, take_turns
from loadtest.driver.background import sending_process
from loadtest.driver.generator import closed_loop
from loadtest.results import files
from loadtest.results.machine import in_words, machine, publishable, shown_settings
from loadtest.results.tables import as_text
from loadtest.testbed.command_line import between, end_on_term
from loadtest.testbed.service import ROOT, Service, running_service

ROUNDS = 9
SECONDS = 0.6
# Ratios that seem to have fallen are measured with more rounds: their medians vary less from run to run.
MORE_ROUNDS = 2
PARTS = ("core", "guards", "growth")
# So that no limit refuses, and a slow variant is slow instead of refusing.
ENVIRON = {"COUPON_LIMIT_GLOBAL": "100000000/minute", "COUPON_DEADLINE_MS": "5000", "COUPON_BACKLOG_MS": "60000"}
Stand = Callable[[Service], AbstractContextManager[list[Group]]]
Measure = Callable[[argparse.Namespace, Sequence[str]], Mapping[str, Any]]


def main(arguments: Sequence[str] | None = None, *, measure: Measure | None = None) -> int:
    """Measure, print, write the result.

    Args:
        arguments: of the command line.
        measure: replaces the measurement in tests.

    Returns:
        1 when a ratio fell against the reference, 2 when the benchmark was aborted.
    """
    measure = measure or measured_now
    parser = _parser()
    given = parser.parse_args(arguments)
    if len(given.rows) != len(growth.ROWS) or given.rows != sorted(set(given.rows)) or given.rows[0] < growth.HOLDERS:
        parser.error(f"--rows: three numbers, ascending, from {growth.HOLDERS}")
    if given.write_docs and set(given.only) != set(PARTS):
        parser.error("--write-docs needs all parts")
    try:
        old = result.read(given.against) if given.against else None
        measured = measure(given, given.only)
        if given.write_docs:
            document.publish(measured)
        longer = argparse.Namespace(**{**vars(given), "rounds": MORE_ROUNDS * given.rounds})
        return judged(old, measured, given.only, partial(measure, longer)) if old else 0
    except (OSError, ValueError, RuntimeError) as error:
        print(f"the benchmark was aborted: {error}", file=sys.stderr)
        return 2


def measured_now(given: argparse.Namespace, parts: Sequence[str]) -> dict[str, Any]:
    """Measure some parts, print the figures, and write the result.

    Args:
        given: the options.
        parts: of PARTS.

    Raises:
        RuntimeError: a variant gives other responses than it should.
    """
    run = Run(datetime.now(UTC), publishable(machine()), given.rounds, given.seconds)
    print(in_words(run.machine), flush=True)
    stands: dict[str, list[Stand]] = {
        "core": [core],
        "guards": [guards],
        "growth": [growth.processes_and_connections, partial(growth.rows, numbers=given.rows)],
    }
    seen: list[tuple[Group, Mapping[str, Seen]]] = []
    for part in (part for part in PARTS if part in parts):
        # A service for each part and web servers for each group: idle servers would disturb the others.
        with running_service(**ENVIRON) as service, sending_process(closed_loop) as process:
            settings = shown_settings(service.environ)
            measure = partial(take_turns, sender=process, sign=service.token, progress=partial(print, flush=True))
            for stand in stands[part]:
                with stand(service) as groups:
                    seen += [(group, measure(group, rounds=given.rounds, seconds=given.seconds)) for group in groups]
    measured = result.compose(run, seen, settings)
    path = given.out / f"{run.began_at:%Y%m%dT%H%M%S%f}.json"
    files.write(path, measured)
    print(f"{report(measured)}\n\nresult: {path}", flush=True)
    return measured


def report(measured: Mapping[str, Any]) -> str:
    """Return all tables for the terminal."""
    shown = []
    for group in measured["groups"]:
        shown.append(f"\n{group['part']}: {group['name']}\n{as_text(tables.figures_of(group))}")
        if group["part"] == "core":
            shown.append("\n" + as_text(tables.processes_of(group)))
    return "\n".join(shown)


def judged(
    old: Mapping[str, Any],
    measured: Mapping[str, Any],
    parts: Sequence[str],
    once_more: Callable[[Sequence[str]], Mapping[str, Any]],
) -> int:
    """Return 1 when a ratio fell, else 0; ratios that fell are measured again, and must have fallen both times.

    Args:
        old: the reference.
        measured: the first result.
        parts: that were measured.
        once_more: measures some of them again.
    """
    found = compare.falls(old, measured, parts=parts)
    if found:
        fallen, again = {fall.key for fall in found}, sorted({fall.key.part for fall in found})
        print(f"\n{compare.report(found, old, measured)}\nonce more, with more rounds: {', '.join(again)}")
        measured = once_more(again)
        found = [fall for fall in compare.falls(old, measured, parts=again) if fall.key in fallen]
    print("\n" + compare.report(found, old, measured))
    return 1 if found else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench", description=__doc__)
    add = parser.add_argument
    add("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=f"of {', '.join(PARTS)}")
    add("--rounds", type=between(1, 100), default=ROUNDS, help="rounds that count (default %(default)s)")
    add("--seconds", type=between(0.1, 60, float), default=SECONDS, help="length of each turn (default %(default)s)")
    add("--rows", type=int, nargs="+", default=list(growth.ROWS), help="existing issuances, three numbers")
    add("--out", type=Path, default=ROOT / "var" / "bench", help="directory of the result (default var/bench)")
    add("--against", type=Path, help="a result; exit with 1 when a ratio fell by more than a tenth, twice")
    add("--write-docs", action="store_true", help="make this the reference, and update docs/performance.md")
    return parser


if __name__ == "__main__":
    end_on_term()
    sys.exit(main())
