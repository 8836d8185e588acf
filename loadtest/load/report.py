"""What a run has shown, as text and as one HTML page. Both read the record and nothing else."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from jinja2 import Environment, FileSystemLoader

from loadtest.load.figures import QUANTILES
from loadtest.results.tables import Table, as_text

PAGE = "report.html"


def text(record: Mapping[str, Any]) -> str:
    """Return the figures, then the verdict.

    Args:
        record: as in `docs/load-record.md`.
    """
    answers = record["answers"]
    summary = (
        f"{answers['count']} requests in {record['length_s']:.1f} s: "
        f"issued {answers['issued_per_s']}/s, refused {answers['refused_per_s']}/s, "
        f"{answers['server_errors']} responses of 5xx, {answers['unanswered']} requests without a response"
    )
    promises = as_text(_promises(record), left=4)
    limits = "\n".join(f"limit: {sentence}" for sentence in record["limit"])
    return "\n\n".join([summary, *(as_text(table) for _, table in _tables(record)), promises, limits, headline(record)])


def headline(record: Mapping[str, Any]) -> str:
    """Return the verdict in one sentence."""
    broken = [check["name"] for check in record["verdict"]["checks"] if not check["kept"]]
    if not broken:
        return "every promise was kept"
    return f"{len(broken)} of {len(record['verdict']['checks'])} promises were broken: {', '.join(broken)}"


def write_page(directory: Path, record: Mapping[str, Any], plots: Sequence[Path]) -> Path:
    """Write a page that needs no other file, with the verdict first.

    Args:
        directory: exists.
        record: as in `docs/load-record.md`.
        plots: PNG files, which become part of the page.
    """
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    page = directory / PAGE
    html = environment.get_template("report.html").render(
        record=record,
        headline=headline(record).capitalize(),
        promises=_promises(record),
        tables=[*_tables(record), ("The run", [["", ""], *_run(record)])],
        plots={plot.stem: b64encode(plot.read_bytes()).decode() for plot in plots},
    )
    page.write_text(html, encoding="utf-8")
    return page


def _promises(record: Mapping[str, Any]) -> Table:
    checks = record["verdict"]["checks"]
    rows = [[one["name"], one["promised"], "kept" if one["kept"] else "BROKEN", one["seen"]] for one in checks]
    return [["promise", "promised", "", "seen"], *rows]


def _tables(record: Mapping[str, Any]) -> list[tuple[str, Table]]:
    """Return the tables of a record with their headings, in the order in which they are read."""
    seconds, answers = record["scenario"]["seconds"], record["answers"]
    names = [*(f"p{q:g}" for q in QUANTILES), "max"]
    codes = [[code, f"{count}", f"{count / seconds:.1f}"] for code, count in answers["by_code"].items()]
    latencies = [[kind, *_figures(seen, names)] for kind, seen in record["latencies"].items()]
    goodput = [
        [f"{step['from_s']:.0f} to {step['to_s']:.0f}", f"{step['rate_per_s']:.0f}", f"{step['good_per_s']:.0f}"]
        for step in record["goodput"]
    ]
    generator = [[f"{number}", *_figures(seen, names)] for number, seen in enumerate(record["generator"], 1)]
    return [
        ("Responses by code", [["code", "count", "per s"], *codes]),
        ("Latency from the planned moment", [["kind", "count", *(f"{name} ms" for name in names)], *latencies]),
        ("Goodput", [["from to s", "planned/s", "good/s"], *goodput]),
        ("Lateness of the generator", [["generator process", "requests", *(f"late {n}" for n in names)], *generator]),
        ("Processors and memory", list(_usage(record))),
    ]


def _figures(seen: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    return [f"{seen['count']}", *(f"{seen[f'{name}_ms']:.1f}" for name in names)]


def _usage(record: Mapping[str, Any]) -> Iterator[list[str]]:
    yield ["processes of", "cpu %", "cpu max", "first MB", "last MB", "most MB"]
    samples = [sample for sample in record["usage"] if 1 <= sample["at_s"] <= record["length_s"]]
    for role in samples[0]["roles"] if samples else ():
        cpu = [sample["roles"][role]["cpu_percent"] for sample in samples]
        mb = [sample["roles"][role]["rss_bytes"] / 1e6 for sample in samples]
        yield [role, *(f"{figure:.0f}" for figure in (mean(cpu), max(cpu), mb[0], mb[-1], max(mb)))]
    if samples:
        machine = [sample["machine_percent"] for sample in samples]
        yield ["the whole machine, of all processors", f"{mean(machine):.0f}", f"{max(machine):.0f}", "", "", ""]


def _run(record: Mapping[str, Any]) -> Iterator[list[str]]:
    scenario = record["scenario"]
    yield ["began at", record["began_at"]]
    yield ["version", f"{record['version']} {record['revision']}"]
    for name in ("rate_per_s", "seconds", "stock", "users"):
        yield [name, str(scenario[name])]
    for name, value in (*record["configuration"].items(), *record["machine"].items()):
        yield [name, str(value)]
