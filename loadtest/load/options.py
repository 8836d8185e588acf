"""The options of `make load`, and the bounds that keep a run from doing harm."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from loadtest.load.plans import Site
from loadtest.load.scenarios import DEFAULT, SCENARIOS, Scenario
from loadtest.testbed.command_line import between
from loadtest.testbed.service import ROOT, WEB_PROCESSES

# What one generator process sends without being late, with room to spare; `generator` in the record
# shows whether that holds on the machine at hand.
RATE_PER_PROCESS = 900
# Of all generator processes together; a web process takes 1,000.
CONNECTIONS = 1_000
MAX_REQUESTS = 1_000_000


@dataclass(frozen=True)
class Target:
    """A service that runs elsewhere.

    Attributes:
        site: its address and coupon.
        secret: signs its tokens.
    """

    site: Site
    secret: str

    def __str__(self) -> str:
        return f"{self.site.host}:{self.site.port}"


@dataclass(frozen=True)
class Options:
    """The options of one run.

    Attributes:
        scenario: with the options applied.
        seed: of the plan.
        out: directory of the records.
        web_processes: of the service that is started.
        generators: number of processes that send.
        connections: of all of them together.
        target: a service elsewhere; None to start one on loopback.
    """

    scenario: Scenario
    seed: int
    out: Path
    web_processes: int
    generators: int
    connections: int
    target: Target | None


def parse(arguments: Sequence[str] | None) -> Options:
    """Parse a command line; end the program with one line where it is wrong."""
    parser = _parser()
    given = parser.parse_args(arguments)
    named = ("rate_per_s", "seconds", "stock", "users")
    changes = {name: getattr(given, name) for name in named if getattr(given, name) is not None}
    scenario = replace(SCENARIOS[given.scenario], **changes)
    requests = (scenario.rate_per_s + scenario.bots_per_s) * scenario.seconds * scenario.tries
    if scenario.opens_at_s >= scenario.seconds:
        parser.error(f"--seconds: more than {scenario.opens_at_s:.0f}, when it opens")
    if requests > MAX_REQUESTS:
        parser.error(f"the run may send {requests:.0f} requests, more than {MAX_REQUESTS}")
    target = _target(parser, given, scenario) if given.target else None
    generators = given.generators or 1 + int((scenario.rate_per_s + scenario.bots_per_s) // RATE_PER_PROCESS)
    return Options(scenario, given.seed, given.out, given.web, generators, given.connections, target)


def _parser() -> argparse.ArgumentParser:
    names = "\n".join(f"  {scenario.name:<12} {scenario.tells}" for scenario in SCENARIOS.values())
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.load",
        description=f"Sends an event's crowd and checks every promise at the end.\n\nscenarios:\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, processes = parser.add_argument, between(1, 64)
    add("scenario", nargs="?", choices=SCENARIOS, default=DEFAULT, metavar="scenario", help="default: %(default)s")
    add(
        "--rate",
        type=between(1, MAX_REQUESTS, float),
        dest="rate_per_s",
        help="requests per second, on average (default of this and the next three: the scenario's)",
    )
    add("--seconds", type=between(1, 3_600), help="length of the run")
    add("--stock", type=between(0, 2**31 - 1), help="pieces")
    add("--users", type=between(1, 1_000_000), help="different users")
    add("--seed", type=int, default=1, help="of the plan; the same seed gives the same plan (default %(default)s)")
    add("--out", type=Path, default=ROOT / "var" / "load", help="directory of the record (default var/load)")
    add("--web", type=processes, default=WEB_PROCESSES, help="web processes (default %(default)s)")
    add("--generators", type=processes, help=f"processes that send (one for {RATE_PER_PROCESS} requests/s)")
    connections = between(1, 20_000)
    add("--connections", type=connections, default=CONNECTIONS, help="of all of them (default %(default)s)")
    add("--target", help="http://host:port of a service elsewhere, which gets the load; none is started then")
    add("--coupon", type=int, help="the coupon there; its pieces will be issued")
    add("--secret-file", type=Path, help="file of the secret that signs tokens there (else COUPON_JWT_SECRET)")
    return parser


def _target(parser: argparse.ArgumentParser, given: argparse.Namespace, scenario: Scenario) -> Target:
    if scenario.opens_at_s > 0:
        parser.error(f"{scenario.name} needs a coupon that opens at its second, so a service of its own")
    if given.coupon is None:
        parser.error("--target needs --coupon: the id of the coupon there")
    parts = urlsplit(given.target)
    try:
        port = parts.port or 80
        secret = given.secret_file.read_text("utf-8").strip() if given.secret_file else ""
    except (ValueError, OSError) as error:
        parser.error(f"--target or --secret-file: {error}")
    if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/"):
        parser.error("--target: http://host:port; behind TLS use loadtest/load/locustfile.py")
    secret = secret or os.environ.get("COUPON_JWT_SECRET", "")
    if not secret:
        parser.error("--target needs --secret-file or COUPON_JWT_SECRET: the secret that signs tokens there")
    return Target(Site(port, given.coupon, parts.hostname), secret)
