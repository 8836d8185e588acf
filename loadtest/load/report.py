"""What a run has shown, as text that a person understands. It reads the record and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loadtest.load.figures import QUANTILES, percentiles_ms

__all__ = ["percentiles_ms", "tell"]


def tell(record: Mapping[str, Any]) -> str:
    """The verdict first, then the numbers.

    Args:
        record: as in `docs/load-record.md`.
    """
    parts = (_answers(record), _latencies(record), _goodput(record), _generator(record), _usage(record))
    return "\n\n".join([*parts, _verdict(record)])


def headline(record: Mapping[str, Any]) -> str:
    """The verdict in one sentence."""
    broken = [check["name"] for check in record["verdict"]["checks"] if not check["kept"]]
    if not broken:
        return "every promise was kept"
    return f"{len(broken)} of {len(record['verdict']['checks'])} promises were broken: {', '.join(broken)}"


def _verdict(record: Mapping[str, Any]) -> str:
    lines = [f"{'promise':<26}{'promised':<48}seen"]
    for check in record["verdict"]["checks"]:
        mark = "kept  " if check["kept"] else "BROKEN"
        lines.append(f"{check['name']:<26}{check['promised']:<48}{mark}  {check['seen']}")
    lines += ["", *(f"limit: {sentence}" for sentence in record["limit"]), "", headline(record)]
    return "\n".join(lines)


def _answers(record: Mapping[str, Any]) -> str:
    answers, seconds = record["answers"], record["scenario"]["seconds"]
    lines = [
        f"{answers['count']} requests in {record['length_s']:.1f} s: "
        f"issued {answers['issued_per_s']}/s, refused {answers['refused_per_s']}/s, "
        f"{answers['server_errors']} answers of 5xx, {answers['unanswered']} without an answer",
        "",
        f"{'code':<24}{'count':>8}{'per s':>10}",
    ]
    for code, count in answers["by_code"].items():
        lines.append(f"{code:<24}{count:>8}{count / seconds:>10.1f}")
    return "\n".join(lines)


def _latencies(record: Mapping[str, Any]) -> str:
    names = [f"p{q:g}" for q in QUANTILES]
    lines = [f"{'kind':<24}{'count':>8}" + "".join(f"{f'{name} ms':>11}" for name in [*names, "max"])]
    for kind, seen in record["latencies"].items():
        lines.append(f"{kind:<24}{seen['count']:>8}" + "".join(f"{seen[f'{n}_ms']:>11.1f}" for n in [*names, "max"]))
    return "\n".join(lines)


def _goodput(record: Mapping[str, Any]) -> str:
    lines = [f"{'from to s':<24}{'planned/s':>10}{'good/s':>10}"]
    for step in record["goodput"]:
        span = f"{step['from_s']:.0f} to {step['to_s']:.0f}"
        lines.append(f"{span:<24}{step['rate_per_s']:>10.0f}{step['good_per_s']:>10.0f}")
    return "\n".join(lines)


def _generator(record: Mapping[str, Any]) -> str:
    lines = [f"{'generator process':<24}{'requests':>8}{'late p50':>11}{'late p99':>11}{'late max':>11}"]
    for number, seen in enumerate(record["generator"], 1):
        lines.append(
            f"{number:<24}{seen['count']:>8}{seen['p50_ms']:>11.1f}{seen['p99_ms']:>11.1f}{seen['max_ms']:>11.1f}"
        )
    return "\n".join(lines)


def _usage(record: Mapping[str, Any]) -> str:
    lines = [f"{'processes of':<24}{'cpu %':>8}{'cpu max':>9}{'first MB':>10}{'last MB':>9}{'most MB':>9}"]
    samples = [sample for sample in record["usage"] if 1 <= sample["at_s"] <= record["length_s"]]
    for role in samples[0]["roles"] if samples else ():
        seen = [sample["roles"][role] for sample in samples]
        cpu, memory = [one["cpu_percent"] for one in seen], [one["rss_bytes"] / 1e6 for one in seen]
        lines.append(
            f"{role:<24}{sum(cpu) / len(cpu):>8.0f}{max(cpu):>9.0f}"
            f"{memory[0]:>10.0f}{memory[-1]:>9.0f}{max(memory):>9.0f}"
        )
    if samples:
        machine = [sample["machine_percent"] for sample in samples]
        lines.append(
            f"{'the whole machine':<24}{sum(machine) / len(machine):>8.0f}{max(machine):>9.0f}   of all processors"
        )
    return "\n".join(lines)
