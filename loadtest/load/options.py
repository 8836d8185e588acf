"""What `make load` takes on its command line, and the bounds that keep a run from doing harm."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from loadtest.load import workers
from loadtest.load.scenarios import DEFAULT, SCENARIOS, Scenario
from loadtest.testbed.service import ROOT, WEB_PROCESSES

MAX_REQUESTS = 1_000_000
MAX_SECONDS = 3_600
MAX_USERS = 1_000_000
MAX_PROCESSES = 64


@dataclass(frozen=True)
class Target:
    """A service that runs elsewhere.

    Attributes:
        host: its name.
        port: its port.
        coupon_id: of the event there.
        secret: with which it signs tokens.
    """

    host: str
    port: int
    coupon_id: int
    secret: str


@dataclass(frozen=True)
class Options:
    """What was asked for.

    Attributes:
        scenario: with the options applied.
        seed: of the plan.
        out: directory of the records.
        web_processes: of the service that is started.
        generators: processes that send.
        connections: of all of them together.
        target: a service elsewhere; None for one of our own on loopback.
    """

    scenario: Scenario
    seed: int
    out: Path
    web_processes: int
    generators: int
    connections: int
    target: Target | None


def parse(arguments: Sequence[str] | None) -> Options:
    """The options of a command line; ends the program with one line where they are wrong."""
    parser = _parser()
    given = parser.parse_args(arguments)
    scenario = _with_options(SCENARIOS[given.scenario], given)
    requests = (scenario.rate_per_s + scenario.bots_per_s) * scenario.seconds * scenario.tries
    for is_wrong, what in (
        (not 1 <= scenario.rate_per_s <= MAX_REQUESTS, f"--rate: 1 to {MAX_REQUESTS} a second"),
        (not 1 <= scenario.seconds <= MAX_SECONDS, f"--seconds: 1 to {MAX_SECONDS}"),
        (not 1 <= scenario.users <= MAX_USERS, f"--users: 1 to {MAX_USERS}"),
        (not 0 <= scenario.stock < 2**31, f"--stock: 0 to {2**31 - 1}"),
        (scenario.opens_at_s >= scenario.seconds, f"--seconds: more than {scenario.opens_at_s:.0f}, when it opens"),
        (requests > MAX_REQUESTS, f"the run may send {requests:.0f} requests, more than {MAX_REQUESTS}"),
        (not 1 <= given.web <= MAX_PROCESSES, f"--web: 1 to {MAX_PROCESSES} processes"),
        (given.generators is not None and not 1 <= given.generators <= MAX_PROCESSES, "--generators: 1 to 64"),
        (not 1 <= given.connections <= 20_000, "--connections: 1 to 20000"),
    ):
        if is_wrong:
            parser.error(what)
    target = _target(parser, given, scenario) if given.target else None
    generators = given.generators or workers.processes_for(scenario)
    return Options(scenario, given.seed, given.out, given.web, generators, given.connections, target)


def _parser() -> argparse.ArgumentParser:
    names = "\n".join(f"  {scenario.name:<12} {scenario.tells}" for scenario in SCENARIOS.values())
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.load",
        description="Sends an event's crowd and holds what comes back against what is promised.\n\nscenarios:\n"
        + names,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "scenario", nargs="?", choices=list(SCENARIOS), default=DEFAULT, metavar="scenario", help="default: %(default)s"
    )
    add("--rate", type=float, help="requests per second, on average (the scenario's when left out; so are the next)")
    add("--seconds", type=int, help="for how long")
    add("--stock", type=int, help="pieces")
    add("--users", type=int, help="different users")
    add("--seed", type=int, default=1, help="of the plan; the same seed plans the same (default %(default)s)")
    add("--out", type=Path, default=ROOT / "var" / "load", help="where the record goes (default var/load)")
    add("--web", type=int, default=WEB_PROCESSES, help="web processes (default %(default)s)")
    add("--generators", type=int, help=f"processes that send (one for {workers.RATE_PER_PROCESS} requests/s)")
    add("--connections", type=int, default=workers.CONNECTIONS, help="of all of them (default %(default)s)")
    add("--target", help="http://host:port of a service elsewhere; none is started then, and yours gets the load")
    add("--coupon", type=int, help="the coupon there; its pieces will be issued")
    add("--secret-file", type=Path, help="file of the secret that signs tokens there (else COUPON_JWT_SECRET)")
    return parser


def _with_options(scenario: Scenario, given: argparse.Namespace) -> Scenario:
    rate = scenario.rate_per_s if given.rate is None else given.rate
    changes = {name: getattr(given, name) for name in ("seconds", "stock", "users") if getattr(given, name) is not None}
    return replace(scenario, rate_per_s=rate, **changes)


def _target(parser: argparse.ArgumentParser, given: argparse.Namespace, scenario: Scenario) -> Target:
    if scenario.opens_at_s > 0:
        parser.error(f"{scenario.name} needs a coupon that opens at its second, so a service of its own")
    parts = urlsplit(given.target)
    try:
        port = parts.port or 80
    except ValueError as error:
        parser.error(f"--target: {error}")
    if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/"):
        parser.error("--target: http://host:port; behind TLS use loadtest/load/locustfile.py")
    if given.coupon is None:
        parser.error("--target needs --coupon: the id of the coupon there")
    try:
        secret = given.secret_file.read_text("utf-8").strip() if given.secret_file else ""
    except OSError as error:
        parser.error(f"--secret-file: {error.strerror}")
    secret = secret or os.environ.get("COUPON_JWT_SECRET", "")
    if not secret:
        parser.error("--target needs --secret-file or COUPON_JWT_SECRET: the secret that signs tokens there")
    return Target(parts.hostname, port, given.coupon, secret)
