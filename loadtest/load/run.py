"""`make load`: an event's crowd against the service, and every promise checked at the end."""

from __future__ import annotations

import http.client
import json
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from loadtest.driver.generator import Result
from loadtest.driver.usage import Sample, watching
from loadtest.load import ledger, record, report
from loadtest.load.options import Options, Target, parse
from loadtest.load.plans import Site
from loadtest.load.promises import judge
from loadtest.load.record import Run
from loadtest.load.workers import LEAD_S, Workers
from loadtest.results.machine import machine, shown_settings
from loadtest.testbed.processes import Processes, family
from loadtest.testbed.service import running_service

# How long to wait for notifications where a scenario promises nothing about them.
_LOOK_S = 5.0
_LOG_BYTES = 1_000_000
_print = partial(print, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a load; return 0 when every promise was kept, 1 when not, 2 when nothing was run."""
    options = parse(arguments)
    if find_spec("matplotlib") is None:
        print("matplotlib is missing: make load installs it from requirements-load.txt", file=sys.stderr)
        return 2
    _print(_announcement(options))
    try:
        run = at_target(options, options.target) if options.target else on_own_service(options)
    except RuntimeError as error:
        print(f"the run was aborted: {error}", file=sys.stderr)
        return 1
    directory = options.out / f"{run.began_at:%Y%m%dT%H%M%S%f}-{run.scenario.name}"
    written = leave(directory, run)
    print(f"\n{report.text(written)}\n\nrecord and report: {directory}")
    return 0 if written["verdict"]["kept"] else 1


def on_own_service(options: Options) -> Run:
    """Start a service on loopback, send, read its ledger, and stop it."""
    scenario, began_at, before = options.scenario, datetime.now(UTC), machine()
    with running_service(WEB_CONCURRENCY=str(options.web_processes), **scenario.environ) as service:
        port, worker = service.start_web(), service.start_worker()
        processes = {**service.processes(), "worker": lambda: family(worker)}

        def site() -> Site:
            # The opening is a moment of the plan, so the coupon is created when the plan's start is known.
            coupon_id = service.new_coupon(scenario.stock, opens_in_s=LEAD_S + scenario.opens_at_s)
            return Site(port, coupon_id, cookie=service.config.cookie_name)

        sent, samples, coupon_id = _send(options, service.environ["COUPON_JWT_SECRET"], processes, site)
        timeout_s = scenario.promises.notified_s or _LOOK_S
        held = ledger.read_when_notified(service.pool, coupon_id, timeout_s=timeout_s, progress=_print)
        logs = {path.name: path.read_bytes()[-_LOG_BYTES:] for path in service.home.glob("*.log")}
        configuration = _configuration(options, shown_settings(service.environ))
        return Run(scenario, began_at, configuration, before, sent, samples, held, logs)


def at_target(options: Options, target: Target) -> Run:
    """Send to a service elsewhere, whose processes and database are not seen."""
    scenario, began_at, before = replace(options.scenario, stock=_pieces(target)), datetime.now(UTC), machine()
    sent, samples, coupon_id = _send(options, target.secret, {}, lambda: target.site)
    _print(f"afterwards, on the service's machine: flask coupons verify {coupon_id}")
    return Run(scenario, began_at, _configuration(options, {}), before, sent, samples)


def leave(directory: Path, run: Run) -> dict[str, Any]:
    """Judge a run and write its record, plots and page into a new directory; return the record."""
    from loadtest.load import plots  # noqa: PLC0415  # generator processes import this file and draw nothing

    checks = judge(run.scenario, run.results, run.ledger, run.samples)
    composed = record.compose(run, checks)
    directory.mkdir(parents=True)
    record.write(directory, composed, run.results)
    report.write_page(directory, composed, plots.draw(directory, composed))
    for name, log in run.logs.items():
        (directory / name).write_bytes(log)
    (directory / "report.txt").write_text(report.text(composed) + "\n", encoding="utf-8")
    return composed


def _send(
    options: Options, secret: str, processes: Processes, site_at_start: Callable[[], Site]
) -> tuple[list[list[Result]], list[Sample], int]:
    """Send the plan; return the results, the samples and the coupon's id."""
    with closing(Workers(options, secret)) as workers:
        workers.wait_until_ready()
        start_s = time.perf_counter() + LEAD_S
        site = site_at_start()
        with watching({**processes, "generator": lambda: map(psutil.Process, workers.pids)}) as sampler:
            sampler.start_s = start_s
            sent = workers.send(site, start_s, lambda at_s, number: _print(f"  {at_s:5.0f} s: {number} answered"))
    return sent, sampler.samples, site.coupon_id


def _pieces(target: Target) -> int:
    """Return how many pieces the coupon there has; also shows that the service answers.

    Raises:
        RuntimeError: it does not answer, or has no such coupon.
    """
    coupon_id = target.site.coupon_id
    try:
        with urllib.request.urlopen(f"http://{target}/api/v1/coupons/{coupon_id}", timeout=10) as response:
            return int(json.load(response)["data"]["total"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        raise RuntimeError(f"{target} shows no coupon {coupon_id}: {error}") from error


def _announcement(options: Options) -> str:
    scenario = options.scenario
    return (
        f"{scenario.name}: {scenario.tells}\n{scenario.rate_per_s:.0f} requests/s for {scenario.seconds} s, "
        f"{scenario.stock} pieces, {scenario.users} users, {options.generators} generator processes, "
        f"at {options.target or 'a service of its own on loopback'}"
    )


def _configuration(options: Options, settings: Mapping[str, str]) -> dict[str, Any]:
    return {
        "seed": options.seed,
        "target": str(options.target) if options.target else None,
        "web_processes": None if options.target else options.web_processes,
        "generator_processes": options.generators,
        "connections": options.connections,
        "settings": settings,
    }
