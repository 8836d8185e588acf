"""PgBouncer between the web processes and PostgreSQL breaks: 503s in time, and recovery without help."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from functools import partial

from loadtest.faults.fault import WITHOUT_POSTGRESQL, Fault, Stage, during
from loadtest.testbed import pgbouncer
from loadtest.testbed.pgbouncer import PgBouncer


def behind_pgbouncer(stage: Stage, stack: ExitStack) -> int:
    """Start a web server that reaches PostgreSQL only through a PgBouncer; return its port."""
    pgbouncer.prepare_role(stage.service.postgres.url)
    stage.fixture = pooler = PgBouncer(stage.service.home / "pgbouncer", stage.service.postgres.url)
    stack.callback(pooler.end)
    pooler.start()
    return stage.service.start_web(environ={"DATABASE_URL": pooler.url})


def killed(stage: Stage) -> AbstractContextManager[None]:
    """Kill it (SIGKILL); start it afterwards."""
    pooler = stage.fixture_as(PgBouncer)
    return during(pooler.kill, pooler.start)


def paused(stage: Stage) -> AbstractContextManager[None]:
    """`PAUSE` it, as for a restart of PostgreSQL: clients can connect, and their statements wait."""
    pooler = stage.fixture_as(PgBouncer)
    return during(lambda: pooler.command("PAUSE"), lambda: pooler.command("RESUME"))


def lacks() -> str:
    """Return what is missing where this machine has no PgBouncer."""
    return "" if pgbouncer.binary() else "PgBouncer is not installed (Debian: apt-get install pgbouncer)"


_fault = partial(Fault, promises=WITHOUT_POSTGRESQL, serves=behind_pgbouncer, lacks=lacks)
FAULTS = (_fault("PgBouncer killed", killed), _fault("PgBouncer paused", paused))
