"""`make load`: an event's crowd against the service, and every promise checked at the end."""

from __future__ import annotations

import http.client
import json
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from couponapp.local.processes import Child
from loadtest.driver.usage import Pids, Sample, watching
from loadtest.load import ledger, page, record, report
from loadtest.load.ledger import Ledger
from loadtest.load.options import Options, Target, parse
from loadtest.load.plans import Site
from loadtest.load.promises import judge
from loadtest.load.record import Run
from loadtest.load.workers import LEAD_S, Job, Sent, fleet
from loadtest.testbed.service import Service, running_service

# Where a scenario does not promise it, the notifications are only looked at.
_LOOK_S = 5.0
_LOG_BYTES = 1_000_000


@dataclass(frozen=True)
class Outcome:
    """What a run brought.

    Attributes:
        settings: of the service, without secrets.
        sent: the answers.
        samples: of processors and memory.
        books: what the database holds, where it could be asked.
        logs: the ends of the service's logs, by file name.
    """

    settings: dict[str, str]
    sent: Sent
    samples: list[Sample]
    ledger: Ledger | None
    logs: dict[str, bytes] = field(default_factory=dict)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the load; returns 0 when every promise was kept."""
    options = parse(arguments)
    if find_spec("matplotlib") is None:
        print("matplotlib is missing: make load installs it from requirements-load.txt", file=sys.stderr)
        return 2
    began_at, machine = datetime.now(UTC), record.machine()
    print(_announcement(options), flush=True)
    try:
        if target := options.target:
            options = replace(options, scenario=replace(options.scenario, stock=_pieces(target)))
            outcome = at_target(options, target)
        else:
            outcome = on_own_service(options)
    except RuntimeError as error:
        print(f"the run was broken off: {error}", file=sys.stderr)
        return 1
    run = Run(options.scenario, began_at, _configuration(options, outcome), machine)
    directory = options.out / f"{began_at:%Y%m%dT%H%M%S%f}-{options.scenario.name}"
    written = leave(directory, run, outcome)
    print(f"\n{report.tell(written)}\n\nrecord and report: {directory}")
    return 0 if written["verdict"]["kept"] else 1


def on_own_service(options: Options) -> Outcome:
    """Start a service on loopback, send, read its books, end it."""
    scenario = options.scenario
    with running_service(WEB_CONCURRENCY=str(options.web_processes), **scenario.environ) as service:
        port = service.start_web()
        worker = service.start_worker()
        signing = {"COUPON_JWT_SECRET": service.environ["COUPON_JWT_SECRET"]}
        with fleet(_job(options, signing)) as generators:
            pids = {**_pids(service), "worker": lambda: _pid(worker), "generator": lambda: generators.pids}
            generators.wait_until_ready()
            # The opening is a moment of the plan, so the coupon is made when the plan's start is known.
            start_s = time.perf_counter() + LEAD_S
            coupon_id = service.new_coupon(scenario.stock, opens_in_s=LEAD_S + scenario.opens_at_s)
            site = Site(port, coupon_id, cookie=service.config.cookie_name)
            sent, samples = _send(generators, site, start_s, pids, scenario.seconds)
        timeout_s = scenario.promises.notified_s or _LOOK_S
        held = ledger.read_when_notified(service.pool, coupon_id, timeout_s=timeout_s, tell=_say)
        logs = {path.name: path.read_bytes()[-_LOG_BYTES:] for path in service.home.glob("*.log")}
        return Outcome(record.shown_settings(service.environ), sent, samples, held, logs)


def at_target(options: Options, target: Target) -> Outcome:
    """Send to a service elsewhere; its processes and its database are not seen."""
    with fleet(_job(options, {"COUPON_JWT_SECRET": target.secret})) as generators:
        generators.wait_until_ready()
        site = Site(target.port, target.coupon_id, target.host)
        start_s = time.perf_counter() + LEAD_S
        pids: Pids = {"generator": lambda: generators.pids}
        sent, samples = _send(generators, site, start_s, pids, options.scenario.seconds)
    _say(f"afterwards, on the service's machine: flask coupons verify {target.coupon_id}")
    return Outcome({}, sent, samples, None)


def leave(directory: Path, run: Run, outcome: Outcome) -> dict[str, Any]:
    """Judge a run and leave its record, plots and page in a new directory; returns the record."""
    from loadtest.load import plots  # noqa: PLC0415  # generator processes import this file and draw nothing

    checks = judge(run.scenario, outcome.sent.results, outcome.ledger, outcome.samples)
    composed = record.compose(run, outcome.sent, outcome.samples, outcome.ledger, checks)
    directory.mkdir(parents=True)
    record.write(directory, composed, outcome.sent)
    page.write(directory, composed, plots.draw(directory, composed))
    for name, log in outcome.logs.items():
        (directory / name).write_bytes(log)
    (directory / "report.txt").write_text(report.tell(composed) + "\n", encoding="utf-8")
    return composed


def _send(generators: Any, site: Site, start_s: float, pids: Pids, seconds: int) -> tuple[Sent, list[Sample]]:
    def progress(at_s: float, answered: int) -> None:
        _say(f"  {at_s:5.0f} s of {seconds}: {answered} answered")

    with watching(pids) as watch:
        watch.start_s = start_s
        sent = generators.send(site, start_s, progress)
    return sent, watch.samples


def _pids(service: Service) -> Pids:
    return {
        "web": lambda: _pid(service.web),
        "postgres": lambda: _pid(service.postgres.child),
        "redis": lambda: _pid(service.valkey.child),
    }


def _pid(child: Child | None) -> list[int]:
    return [child.process.pid] if child else []


def _job(options: Options, signing: dict[str, str]) -> Job:
    return Job(options.scenario, options.seed, signing, options.generators, options.connections)


def _pieces(target: Target) -> int:
    """How many pieces the coupon there has; also shows that the service answers.

    Raises:
        RuntimeError: it does not, or knows no such coupon.
    """
    connection = http.client.HTTPConnection(target.host, target.port, timeout=10)
    try:
        connection.request("GET", f"/api/v1/coupons/{target.coupon_id}")
        return int(json.loads(connection.getresponse().read())["data"]["total"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        raise RuntimeError(f"{target.host}:{target.port} shows no coupon {target.coupon_id}: {error}") from error
    finally:
        connection.close()


def _announcement(options: Options) -> str:
    scenario = options.scenario
    where = f"{options.target.host}:{options.target.port}" if options.target else "a service of its own on loopback"
    return (
        f"{scenario.name}: {scenario.tells}\n{scenario.rate_per_s:.0f} requests/s for {scenario.seconds} s, "
        f"{scenario.stock} pieces, {scenario.users} users, {options.generators} generator processes, at {where}"
    )


def _configuration(options: Options, outcome: Outcome) -> dict[str, Any]:
    return {
        "seed": options.seed,
        "target": f"{options.target.host}:{options.target.port}" if options.target else None,
        "web_processes": None if options.target else options.web_processes,
        "generator_processes": options.generators,
        "connections": options.connections,
        "settings": outcome.settings,
    }


def _say(line: str) -> None:
    print(line, flush=True)


def end_on_term() -> None:
    """Treat TERM like Ctrl-C, so that what was started is ended and not left behind."""
    signal.signal(signal.SIGTERM, _end)


def _end(*_: object) -> NoReturn:
    sys.exit("the run was ended")
