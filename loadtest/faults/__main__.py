"""`make faults`: each fault under load, with what was expected and what was seen."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial

from loadtest.faults import (
    full_speed,
    notifying,
    on_clock,
    on_disk,
    on_failover,
    on_notifications,
    on_pgbouncer,
    on_postgres,
    on_redis,
    on_replies,
    on_restart,
    on_web,
    run,
)
from loadtest.faults.host_load import BUSY_MS, wait_until_quiet
from loadtest.faults.verdict import Verdict, table

# Before a second try.
QUIET_TIMEOUT_S = 30.0

ON_SERVERS = (on_redis, on_postgres, on_web, on_disk, on_clock, on_replies, on_restart, on_pgbouncer, on_failover)
CASES: dict[str, Callable[[], Verdict]] = {
    **{fault.name: partial(run.run, fault) for module in ON_SERVERS for fault in module.FAULTS},
    **{fault.name: partial(full_speed.run, fault) for fault in full_speed.FAULTS},
    **{fault.name: partial(notifying.run, fault) for fault in on_notifications.FAULTS},
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run every fault; return 0 when every promise was kept, else 1."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.faults", description=__doc__)
    parser.add_argument("--only", default="", help="faults whose name contains this")
    only = parser.parse_args(arguments).only
    chosen = [name for name in CASES if only in name]
    if not chosen:
        parser.error(f"--only: none of {', '.join(CASES)}")
    verdicts = [judged(CASES[name]) for name in chosen]
    print("\n" + table(verdicts))
    return 1 if any(verdict.broken for verdict in verdicts) else 0


def judged(case: Callable[[], Verdict]) -> Verdict:
    """Run one fault and return its verdict; where it is broken on a busy machine, that of a second run."""
    verdict = case()
    print(verdict.report(), flush=True)
    if verdict.broken and verdict.waited_ms > BUSY_MS:
        print("        the machine was busy; once more when it is quiet", flush=True)
        wait_until_quiet(QUIET_TIMEOUT_S)
        verdict = case()
        print(verdict.report(), flush=True)
    return verdict


if __name__ == "__main__":
    sys.exit(main())
