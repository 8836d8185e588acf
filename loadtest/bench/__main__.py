"""`make bench`: ours against its baselines, with and without each guard, and as it grows, all as ratios."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from loadtest.bench import compare, document, growth, result, tables
from loadtest.bench.core import core
from loadtest.bench.guards import guards
from loadtest.bench.result import Run
from loadtest.bench.sender import sender
from loadtest.bench.turns import Group, Seen, take_turns
from loadtest.load import record
from loadtest.testbed.service import ROOT, Service, running_service

ROUNDS = 9
SECONDS = 0.6
# What seems to have fallen is measured with so many times the rounds: their median differs less from run to run.
TIMES_ONCE_MORE = 2
PARTS = ("core", "guards", "growth")
# So that no limit refuses, and a slow variant is slow instead of refusing.
ENVIRON = {
    "COUPON_LIMIT_GLOBAL": "100000000/minute",
    "COUPON_DEADLINE_MS": "5000",
    "COUPON_BACKLOG_MS": "60000",
}
Stand = Callable[[Service], AbstractContextManager[list[Group]]]
Measure = Callable[[argparse.Namespace, Sequence[str]], Mapping[str, Any]]


def main(arguments: Sequence[str] | None = None, *, measure: Measure | None = None) -> int:
    """Measure, print, leave the result.

    Args:
        arguments: of the command line.
        measure: tests put figures of their own here.

    Returns:
        1 when a ratio fell against the reference, 2 when the benchmark was broken off.
    """
    measure = measure or measured_now
    parser = _parser()
    given = parser.parse_args(arguments)
    if not 1 <= given.rounds <= 100 or not 0.1 <= given.seconds <= 60:
        parser.error("1 to 100 rounds of 0.1 to 60 seconds")
    if len(given.rows) != len(growth.ROWS) or given.rows != sorted(set(given.rows)) or given.rows[0] < growth.HOLDERS:
        parser.error(f"--rows: three numbers, ascending, from {growth.HOLDERS}")
    if given.write_docs and set(given.only) != set(PARTS):
        parser.error("--write-docs needs all parts")
    try:
        old = result.read(given.against) if given.against else None
        measured = measure(given, given.only)
        if given.write_docs:
            publish(measured)
        longer = argparse.Namespace(**{**vars(given), "rounds": TIMES_ONCE_MORE * given.rounds})
        return judged(old, measured, given.only, partial(measure, longer)) if old else 0
    except (OSError, ValueError, RuntimeError) as error:
        print(f"the benchmark was broken off: {error}", file=sys.stderr)
        return 2


def measured_now(given: argparse.Namespace, parts: Sequence[str]) -> dict[str, Any]:
    """Measure some parts, print what was seen, and leave it as a file.

    Args:
        given: the options.
        parts: which.

    Raises:
        RuntimeError: a variant answers otherwise than it should.
    """
    run = Run(datetime.now(UTC), result.described(record.machine()), given.rounds, given.seconds)
    print(tables.in_words(run.machine), flush=True)
    seen: list[tuple[Group, Mapping[str, Seen]]] = []
    for part in (part for part in PARTS if part in parts):
        # Each part has a service of its own, and each group its web servers: what is not measured is in the way.
        with running_service(**ENVIRON) as service, sender() as process:
            settings = record.shown_settings(service.environ)
            take = partial(
                take_turns,
                sender=process,
                secret=service.environ["COUPON_JWT_SECRET"],
                rounds=given.rounds,
                seconds=given.seconds,
                progress=_say,
            )
            for stand in _stands(part, given.rows):
                with stand(service) as groups:
                    seen += [(group, take(group)) for group in groups]
    measured = result.compose(run, seen, settings)
    path = given.out / f"{run.began_at:%Y%m%dT%H%M%S%f}.json"
    result.write(path, measured)
    print(f"{report(measured)}\n\nresult: {path}", flush=True)
    return measured


def report(measured: Mapping[str, Any]) -> str:
    """All tables for the terminal."""
    shown = []
    for group in measured["groups"]:
        shown.append(f"\n{group['part']}: {group['name']}\n{tables.as_text(tables.figures_of(group))}")
        if group["part"] == "core":
            shown.append("\n" + tables.as_text(tables.processes_of(group)))
    return "\n".join(shown)


def judged(
    old: Mapping[str, Any],
    measured: Mapping[str, Any],
    parts: Sequence[str],
    once_more: Callable[[Sequence[str]], Mapping[str, Any]],
) -> int:
    """1 when a ratio fell, otherwise 0; what fell is measured once more, longer, and only what fell both times counts.

    Args:
        old: what it is held against.
        measured: the first result.
        parts: that were measured.
        once_more: measures some of them again.
    """
    found = compare.falls(old, measured, parts=parts)
    if found:
        fallen, again = {fall.key for fall in found}, sorted({fall.key.part for fall in found})
        print(f"\n{compare.tell(found, old, measured)}\nonce more, with more rounds: {', '.join(again)}")
        measured = once_more(again)
        found = [fall for fall in compare.falls(old, measured, parts=again) if fall.key in fallen]
    print("\n" + compare.tell(found, old, measured))
    return 1 if found else 0


def publish(measured: Mapping[str, Any]) -> None:
    """Make a result the reference, and write its figures into the documentation."""
    text = document.filled(document.DOCUMENT.read_text(encoding="utf-8"), measured)
    result.write(document.REFERENCE, measured)
    document.DOCUMENT.write_text(text, encoding="utf-8")


def _stands(part: str, rows: Sequence[int]) -> list[Stand]:
    by_part: dict[str, list[Stand]] = {
        "core": [core],
        "guards": [guards],
        "growth": [growth.processes_and_connections, partial(growth.rows, numbers=rows)],
    }
    return by_part[part]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench", description=__doc__)
    add = parser.add_argument
    add("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=f"of {', '.join(PARTS)}")
    add("--rounds", type=int, default=ROUNDS, help="rounds that count (default %(default)s)")
    add("--seconds", type=float, default=SECONDS, help="length of each turn (default %(default)s)")
    add("--rows", type=int, nargs="+", default=list(growth.ROWS), help="issuances that are there already, three sizes")
    add("--out", type=Path, default=ROOT / "var" / "bench", help="where the result goes (default var/bench)")
    add("--against", type=Path, help="a result; exit with 1 when a ratio fell by more than a tenth, twice")
    add("--write-docs", action="store_true", help="make this the reference, and write docs/performance.md anew")
    return parser


def _say(line: str) -> None:
    print(line, flush=True)


def _end(*_: object) -> NoReturn:
    sys.exit("the benchmark was ended")


if __name__ == "__main__":
    # TERM as Ctrl-C: what was started is ended, not left behind.
    signal.signal(signal.SIGTERM, _end)
    sys.exit(main())
