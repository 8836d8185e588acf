"""Where the limit lies: which processor or process was full, or whether the generator was late."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

from loadtest.driver.usage import Sample

# From here on a process, or the machine, has nothing left to give.
FULL_PERCENT = 90.0
# A generator that is later than this at its 99th percentile measures itself.
LATE_MS = 50.0
# More than this by others on the machine, and a second run may tell something else.
STRANGERS_PERCENT = 20.0


def during(samples: Sequence[Sample], seconds: float) -> list[Sample]:
    """The samples of the run proper, without what comes before and after it."""
    return [sample for sample in samples if 1.0 <= sample.at_s <= seconds]


def tell(samples: Sequence[Sample], lateness: Sequence[dict[str, Any]], processors: int) -> list[str]:
    """What was full, in sentences; the first is the one that counts.

    Args:
        samples: of the run.
        lateness: of each generator process.
        processors: of the machine.
    """
    told = []
    late_ms = max((one["p99_ms"] for one in lateness), default=0.0)
    if late_ms > LATE_MS:
        told.append(
            f"The generator itself was late: {late_ms:.0f} ms at its 99th percentile. The latencies are partly its own."
        )
    if not samples:
        return told
    machine = mean(sample.machine_percent for sample in samples)
    shares = _shares(samples)
    full = ", ".join(f"{role} {percent:.0f} %" for role, percent in shares.items())
    if machine >= FULL_PERCENT:
        told.append(
            f"The machine's {processors} processors were {machine:.0f} % busy, in percent of one processor: {full}."
        )
    for role in shares:
        busiest = mean(sample.roles[role].busiest_percent for sample in samples if role in sample.roles)
        if busiest >= FULL_PERCENT:
            told.append(f"One process of {role} used {busiest:.0f} % of a processor: it can do no more.")
    strangers = processors * machine - sum(shares.values())
    if strangers > STRANGERS_PERCENT:
        told.append(
            f"Other programs on the machine, or other guests of its host, used {strangers:.0f} % of a processor: "
            "a quiet machine may do better."
        )
    if not told:
        told.append(
            f"No processor was full ({machine:.0f} % of the machine; {full}). What is slow all the same "
            "waits for something else: the disk at a commit, a lock, a limit."
        )
    return told


def _shares(samples: Sequence[Sample]) -> dict[str, float]:
    roles = {role for sample in samples for role in sample.roles}
    shares = {
        role: mean(sample.roles[role].cpu_percent for sample in samples if role in sample.roles) for role in roles
    }
    return dict(sorted(shares.items(), key=lambda share: -share[1]))
