"""One HTML page of a run that needs nothing beside it: the verdict first, for whoever must decide."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from loadtest.load.figures import QUANTILES
from loadtest.load.report import headline

PAGE = "report.html"

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a }
table { border-collapse: collapse; margin: 1rem 0 } th, td { padding: .25rem .8rem; border-bottom: 1px solid #ddd }
th { text-align: left } td.n { text-align: right; font-variant-numeric: tabular-nums }
.kept { color: #14692f } .broken { color: #b00020; font-weight: bold } img { max-width: 100% }
"""


def write(directory: Path, record: Mapping[str, Any], plots: Sequence[Path]) -> Path:
    """Write the page.

    Args:
        directory: exists.
        record: as in `docs/load-record.md`.
        plots: PNG files, which become part of the page.
    """
    page = directory / PAGE
    page.write_text(_page(record, plots), encoding="utf-8")
    return page


def _page(record: Mapping[str, Any], plots: Sequence[Path]) -> str:
    scenario, answers, machine = record["scenario"], record["answers"], record["machine"]
    kept = record["verdict"]["kept"]
    parts = [
        Markup("<h1>Load run «{}»</h1><p>{}</p>").format(scenario["name"], scenario["tells"]),
        Markup('<p class="{}">{}</p>').format("kept" if kept else "broken", headline(record).capitalize()),
        _promises(record["verdict"]["checks"]),
        Markup("<h2>Where the limit lies</h2>"),
        *(Markup("<p>{}</p>").format(sentence) for sentence in record["limit"]),
        Markup(
            "<h2>What came, and what was answered</h2><p>{} requests; issued {} per second, refused {} per second.</p>"
        ).format(answers["count"], answers["issued_per_s"], answers["refused_per_s"]),
        _table(("code", "count"), answers["by_code"].items()),
        Markup(
            "<h2>How long it took</h2><p>Milliseconds from the planned moment, so that waiting to be sent counts.</p>"
        ),
        _latencies(record["latencies"]),
        *(_image(plot) for plot in plots),
        Markup("<h2>The run</h2>"),
        _table(("", ""), [*_run(record), *machine.items()]),
    ]
    return Markup(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Load run {}</title><style>{}</style></head>'
        "<body>{}</body></html>\n"
    ).format(scenario["name"], Markup(STYLE), Markup("\n").join(parts))  # noqa: S704  # our own constant


def _promises(checks: Iterable[Mapping[str, Any]]) -> Markup:
    rows = Markup("").join(
        Markup('<tr><td>{}</td><td>{}</td><td>{}</td><td class="{}">{}</td></tr>').format(
            check["name"],
            check["promised"],
            check["seen"],
            "kept" if check["kept"] else "broken",
            "kept" if check["kept"] else "broken",
        )
        for check in checks
    )
    return Markup("<table><tr><th>promise</th><th>promised</th><th>seen</th><th></th></tr>{}</table>").format(rows)


def _latencies(latencies: Mapping[str, Mapping[str, Any]]) -> Markup:
    names = [*(f"p{q:g}" for q in QUANTILES), "max"]
    rows = [(kind, seen["count"], *(f"{seen[f'{name}_ms']:.1f}" for name in names)) for kind, seen in latencies.items()]
    return _table(("kind", "count", *names), rows)


def _run(record: Mapping[str, Any]) -> list[tuple[str, object]]:
    scenario, generator = record["scenario"], record["generator"]
    late_ms = max((one["p99_ms"] for one in generator), default=0.0)
    return [
        ("began at", record["began_at"]),
        ("version", f"{record['version']} {record['revision']}"),
        ("requests per second", scenario["rate_per_s"]),
        ("seconds", scenario["seconds"]),
        ("pieces", scenario["stock"]),
        ("users", scenario["users"]),
        ("generator", f"{len(generator)} processes, late by {late_ms:.1f} ms at p99"),
        *record["configuration"].items(),
    ]


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> Markup:
    top = Markup("").join(Markup("<th>{}</th>").format(name) for name in head)
    body = Markup("").join(Markup("<tr>{}</tr>").format(Markup("").join(_cell(value) for value in row)) for row in rows)
    return Markup("<table><tr>{}</tr>{}</table>").format(top, body)


def _cell(value: object) -> Markup:
    return Markup("<td>{}</td>").format(escape(value))


def _image(plot: Path) -> Markup:
    source = b64encode(plot.read_bytes()).decode()
    return Markup('<p><img alt="{}" src="data:image/png;base64,{}"></p>').format(plot.stem, source)
