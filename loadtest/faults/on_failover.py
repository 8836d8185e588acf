"""PostgreSQL has a synchronous standby, which breaks, or is promoted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial

from couponapp.local.processes import Child
from loadtest.faults.fault import POOLS_HEAL_S, REFUSES, WITHOUT_POSTGRESQL, Fault, Stage
from loadtest.testbed.processes import kill, suspend, suspended
from loadtest.testbed.replica import Replica

# A connection waits 2 s for the first server of its address before it tries the second; the rest is
# for a pool that has begun to connect just before the second was ready.
BACK_S = POOLS_HEAL_S + 3.0


def with_standby(stage: Stage, stack: ExitStack) -> int:
    """Start a synchronous standby and a web server that knows both addresses; return its port."""
    home = stage.service.home / "standby"
    stage.fixture = replica = Replica(home, stage.service.postgres)
    stack.callback(replica.end)
    replica.start(home)
    replica.make_synchronous()
    return stage.service.start_web(environ={"DATABASE_URL": replica.either_url})


@contextmanager
def failed_over(stage: Stage, stop: Callable[[Child | None], None]) -> Iterator[None]:
    """Stop the primary for good; promote the standby at the end."""
    stop(stage.service.postgres.child)
    yield
    standby = stage.fixture_as(Replica)
    standby.promote()
    stage.moved_to = standby.url


def standby_frozen(stage: Stage) -> AbstractContextManager[None]:
    """Let the standby confirm nothing, so that no commit ends and no attempt gets a 201."""
    return suspended(stage.fixture_as(Replica).child)


_fault = partial(Fault, serves=with_standby)
FAULTS = (
    _fault("failover to a standby", partial(failed_over, stop=kill), WITHOUT_POSTGRESQL),
    _fault("failover, primary frozen", partial(failed_over, stop=suspend), WITHOUT_POSTGRESQL, back_s=BACK_S),
    _fault("synchronous standby frozen", standby_frozen, REFUSES),
)
