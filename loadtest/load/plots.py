"""Draws a run: requests and responses, latencies, what the processes used. One PNG each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

_MAX_CODES = 8


def draw(directory: Path, record: Mapping[str, Any]) -> list[Path]:
    """Write the plots of a record.

    Args:
        directory: exists.
        record: as in `docs/load-record.md`.

    Returns:
        The files, in the order in which they are read.
    """
    drawn = []
    for name, of in PLOTS.items():
        # Without pyplot, which keeps every figure and looks for a display.
        figure = Figure(figsize=(9.0, 3.2), dpi=110, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        of(axes, record)
        axes.set_xlabel("seconds from the first request")
        axes.set_xlim(left=0)
        axes.grid(visible=True, alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            # Next to the axes, because lines may be anywhere inside.
            axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0, fontsize="small")
        figure.savefig(directory / name)
        drawn.append(directory / name)
    return drawn


def _answers(axes: Any, record: Mapping[str, Any]) -> None:
    rows = record["seconds"]
    at = [row["second"] + 0.5 for row in rows]
    axes.set_title("Requests per second: planned, and answered by code")
    axes.plot(at, [row["planned"] for row in rows], color="black", linestyle=":", label="planned")
    for code in list(record["answers"]["by_code"])[:_MAX_CODES]:
        axes.plot(at, [row["answered"].get(code, 0) for row in rows], label=code)
    axes.set_ylim(bottom=0)


def _latencies(axes: Any, record: Mapping[str, Any]) -> None:
    rows = [row for row in record["seconds"] if row["attempts_p99_ms"] > 0]
    at = [row["second"] + 0.5 for row in rows]
    axes.set_title("Attempts to issue: milliseconds from the planned moment to the response")
    if rows:  # a logarithmic scale needs something above zero
        axes.semilogy(at, [row["attempts_p50_ms"] for row in rows], label="p50 of each second")
        axes.semilogy(at, [row["attempts_p99_ms"] for row in rows], label="p99 of each second")
        for formats in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            formats(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.5)))  # 20, not 2 × 10¹


def _processors(axes: Any, record: Mapping[str, Any]) -> None:
    axes.set_title("Processors: percent of one, by role of the processes")
    samples, processors = record["usage"], record["machine"]["processors"]
    machine = [processors * sample["machine_percent"] for sample in samples]
    axes.plot([sample["at_s"] for sample in samples], machine, color="black", linestyle=":", label="all programs")
    _by_role(axes, record, "cpu_percent", 1.0)


def _memory(axes: Any, record: Mapping[str, Any]) -> None:
    axes.set_title("Resident memory: MB, by role of the processes")
    _by_role(axes, record, "rss_bytes", 1e6)


def _by_role(axes: Any, record: Mapping[str, Any], what: str, unit: float) -> None:
    samples = record["usage"]
    for role in samples[0]["roles"] if samples else ():
        values = [sample["roles"][role][what] / unit for sample in samples]
        axes.plot([sample["at_s"] for sample in samples], values, label=role)
    axes.set_ylim(bottom=0)


PLOTS = {"answers.png": _answers, "latencies.png": _latencies, "processors.png": _processors, "memory.png": _memory}
