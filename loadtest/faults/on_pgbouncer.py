"""PgBouncer between the web processes and PostgreSQL breaks: refusals in time, and back by itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from loadtest.faults.fault import Fault, Shows, Stage
from loadtest.faults.on_postgres import CACHED, REFUSED, REFUSED_READ
from loadtest.testbed import pgbouncer
from loadtest.testbed.pgbouncer import PgBouncer


def behind_pgbouncer(stage: Stage, stack: ExitStack) -> int:
    """A web server that reaches PostgreSQL only through a PgBouncer."""
    pgbouncer.prepare_role(stage.service.postgres.url)
    stage.beside = between = PgBouncer(stage.service.home / "pgbouncer", stage.service.postgres.url)
    stack.callback(between.end)
    between.start()
    return stage.service.start_web(environ={"DATABASE_URL": between.url})


def _between(stage: Stage) -> PgBouncer:
    assert isinstance(stage.beside, PgBouncer)
    return stage.beside


@contextmanager
def killed(stage: Stage) -> Iterator[None]:
    """Kill -9; started again afterwards."""
    _between(stage).kill()
    try:
        yield
    finally:
        _between(stage).start()


@contextmanager
def paused(stage: Stage) -> Iterator[None]:
    """`PAUSE`, as for a restart of PostgreSQL: clients may connect, and their statements wait."""
    _between(stage).command("PAUSE")
    try:
        yield
    finally:
        _between(stage).command("RESUME")


def lacks() -> str:
    """What the machine has not, where it has no PgBouncer."""
    return "" if pgbouncer.binary() else "PgBouncer is not installed (Debian: apt-get install pgbouncer)"


FAULTS = (
    Fault(
        name="PgBouncer killed",
        expected="503; look-ups from the cache",
        happens=killed,
        issue=REFUSED,
        shows=Shows.REFUSALS,
        look_up=CACHED,
        mine=REFUSED_READ,
        serves=behind_pgbouncer,
        lacks=lacks,
    ),
    Fault(
        name="PgBouncer paused",
        expected="503; look-ups from the cache",
        happens=paused,
        issue=REFUSED,
        shows=Shows.REFUSALS,
        look_up=CACHED,
        mine=REFUSED_READ,
        serves=behind_pgbouncer,
        lacks=lacks,
    ),
)
