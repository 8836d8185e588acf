"""Where the limit is: which processor or process was full, or whether the generator was late."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

from loadtest.driver.usage import Sample

# From here on a process, or the machine, can do no more.
FULL_PERCENT = 90.0
# A generator that is later than this at its 99th percentile measures itself.
LATE_MS = 50.0
# If other programs use more than this, a second run may give another result.
OTHERS_PERCENT = 20.0


def during(samples: Sequence[Sample], seconds: float) -> list[Sample]:
    """Return the samples of the run proper, without what comes before and after it."""
    return [sample for sample in samples if 1.0 <= sample.at_s <= seconds]


def limits(samples: Sequence[Sample], lateness: Sequence[dict[str, Any]], processors: int) -> list[str]:
    """Return what was full, in sentences; the first is the most important.

    Args:
        samples: of the run.
        lateness: of each generator process.
        processors: number of the machine's processors.
    """
    found = []
    late_ms = max((one["p99_ms"] for one in lateness), default=0.0)
    if late_ms > LATE_MS:
        found.append(
            f"The generator itself was late: {late_ms:.0f} ms at its 99th percentile. The latencies are partly its own."
        )
    if not samples:
        return found
    machine = mean(sample.machine_percent for sample in samples)
    roles = {role: [sample.roles[role] for sample in samples if role in sample.roles] for role in samples[-1].roles}
    shares = {role: mean(used.cpu_percent for used in of_role) for role, of_role in roles.items()}
    by_share = sorted(shares, key=lambda role: -shares[role])
    full = ", ".join(f"{role} {shares[role]:.0f} %" for role in by_share)
    if machine >= FULL_PERCENT:
        found.append(
            f"The machine's {processors} processors were {machine:.0f} % busy, in percent of one processor: {full}."
        )
    for role in by_share:
        busiest = mean(used.busiest_percent for used in roles[role])
        if busiest >= FULL_PERCENT:
            found.append(f"One process of {role} used {busiest:.0f} % of a processor: it can do no more.")
    others = processors * machine - sum(shares.values())
    if others > OTHERS_PERCENT:
        found.append(
            f"Other programs on the machine, or other guests of its host, used {others:.0f} % of a processor: "
            "a quiet machine may do better."
        )
    return found or [
        f"No processor was full ({machine:.0f} % of the machine; {full}). What is slow nevertheless "
        "waits for something else: the disk at a commit, a lock, a limit."
    ]
