"""What a run has shown, as text that a person understands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import quantiles

from loadtest.generator import Result

QUANTILES = (50, 95, 99)


def percentiles_ms(latencies_s: Sequence[float]) -> dict[int, float]:
    """p50, p95 and p99 in milliseconds."""
    if len(latencies_s) < 2:
        return dict.fromkeys(QUANTILES, 1000 * sum(latencies_s))
    cuts = quantiles(latencies_s, n=100, method="inclusive")
    return {q: 1000 * cuts[q - 1] for q in QUANTILES}


def tell(results: Sequence[Result], seconds: float) -> str:
    """Counts by code, and latencies by kind of request."""
    lines = [f"{len(results)} requests in {seconds:.1f} s", "", f"{'code':<24}{'count':>8}{'per s':>10}"]
    for code, count in Counter(result.code for result in results).most_common():
        lines.append(f"{code:<24}{count:>8}{count / seconds:>10.1f}")
    lines += ["", f"{'kind':<24}{'count':>8}" + "".join(f"{f'p{q} ms':>10}" for q in QUANTILES)]
    for kind in sorted({result.kind for result in results}):
        latencies_s = [result.latency_s for result in results if result.kind == kind]
        shown = percentiles_ms(latencies_s)
        lines.append(f"{kind:<24}{len(latencies_s):>8}" + "".join(f"{shown[q]:>10.1f}" for q in QUANTILES))
    return "\n".join(lines)
