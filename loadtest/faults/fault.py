"""What a fault is: how it happens, and what is promised meanwhile and afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import Enum

from loadtest.testbed.preload import Control
from loadtest.testbed.service import Service
from loadtest.testbed.tcp_proxy import DelayingProxy

# The deadline of an attempt, and what this machine may add to it.
BOUND_S = 1.5
# Where PostgreSQL answers look-ups, they are answered within this, at p99.
READ_P99_S = 0.1
# Pools heal within this after PostgreSQL answers again; a circuit that has opened takes longer.
POOLS_HEAL_S = 2.0
CIRCUIT_CLOSES_S = 6.0

ISSUE, LOOK_UP, MINE = "issue", "look-up", "my coupons"


@dataclass
class Stage:
    """What a fault can reach.

    Attributes:
        service: the servers.
        port: of the web server.
        coupon_id: which is being issued.
        relay: between the web processes and Redis, PostgreSQL or the clients, where the fault wants one.
        control: of the disk and the clock of some processes, where the fault wants it.
        beside: what else the fault has set up, for its own block.
        moved_to: PostgreSQL's address where it is no longer the service's.
        broken: promises that only the fault itself can see broken, one sentence each.
    """

    service: Service
    port: int
    coupon_id: int
    relay: DelayingProxy | None = None
    control: Control | None = None
    beside: object = None
    moved_to: str = ""
    broken: list[str] = field(default_factory=list)

    @contextmanager
    def answers_late(self, delay_s: float) -> Iterator[None]:
        """Whoever stands behind the relay answers late until the block ends.

        Args:
            delay_s: how late, in seconds.
        """
        assert self.relay is not None
        self.relay.delay_s = delay_s
        try:
            yield
        finally:
            self.relay.delay_s = 0.0


class Behind(Enum):
    """Which server stands behind a relay."""

    NEITHER = None
    REDIS = "REDIS_URL"
    POSTGRESQL = "DATABASE_URL"
    WEB = "PORT"


class Preloaded(Enum):
    """Whose disk and clock the fault controls."""

    NOBODY = "no process"
    POSTGRESQL = "all processes of PostgreSQL"
    WEB = "all web processes"


class Lost(Enum):
    """Which requests may stay without an answer at all."""

    NONE = "no answer is lost"
    UNDER_WAY = "only what a dead process was answering is lost"
    NEWCOMERS = "only requests after it are refused"
    FEW = "a request may meet a connection that is just being taken away"


class Shows(Enum):
    """By what the service shows that the fault has reached it: one that has not proves nothing."""

    NOTHING = "its own block sees to it"
    REFUSALS = "some attempts are refused"
    NOT_OPEN = "some attempts are told that it has not opened"
    OWN_COUNTERS = "some process counts its limits by itself"


@dataclass(frozen=True)
class Promise:
    """What the answers to one kind of request must be while there is trouble.

    Attributes:
        statuses: any of these.
        bound_s: the most that an answer may take, in seconds.
        p99_s: within what 99 of 100 come, in seconds.
        done: share that must succeed, where work goes on beside the fault.
    """

    statuses: frozenset[int]
    bound_s: float = BOUND_S
    p99_s: float = BOUND_S
    done: float = 0.0


def answers(*statuses: int, bound_s: float = BOUND_S, p99_s: float = BOUND_S, done: float = 0.0) -> Promise:
    """A promise; see there."""
    return Promise(frozenset(statuses), bound_s, max(p99_s, bound_s) if bound_s > BOUND_S else p99_s, done)


ALIVE = answers(200, p99_s=READ_P99_S)


def _nothing(_: Stage) -> Iterable[str]:
    return ()


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that breaks in the middle of a load.

    Attributes:
        name: what the table calls it.
        expected: in words.
        happens: the block in which it does.
        issue: what attempts are answered.
        look_up: what coupon look-ups are answered.
        mine: what «my coupons» is answered.
        shows: by what it must be noticed.
        lost: what may stay without an answer.
        loses_after_s: how long after its beginning the first answers may be lost, in seconds.
        lasts_s: for how long, in seconds.
        back_s: when all is well again after it, in seconds, unless the circuit has opened.
        mending_s: how long it may take to start again what it has ended, in seconds.
        rate_per_s: attempts to issue, per second.
        behind: which server stands behind the stage's relay.
        preloaded: whose disk and clock the stage controls.
        files: how many files and connections each web process may have open.
        look_ups_connect_anew: each look-up comes on a connection of its own.
        serves: starts what is to be asked, where that is more than a web server; returns the port.
        lacks: what this machine does not have and the fault needs, in words; it is skipped then.
        afterwards: asked when all is over: sentences that tell what is still broken.
    """

    name: str
    expected: str
    happens: Callable[[Stage], AbstractContextManager[None]]
    issue: Promise
    look_up: Promise = ALIVE
    mine: Promise = ALIVE
    shows: Shows = Shows.NOTHING
    lost: Lost = Lost.NONE
    loses_after_s: float = 0.0
    lasts_s: float = 3.0
    back_s: float = POOLS_HEAL_S
    mending_s: float = 1.5
    rate_per_s: int = 100
    behind: Behind = Behind.NEITHER
    preloaded: Preloaded = Preloaded.NOBODY
    files: int | None = None
    look_ups_connect_anew: bool = False
    serves: Callable[[Stage, ExitStack], int] | None = None
    lacks: Callable[[], str] = str
    afterwards: Callable[[Stage], Iterable[str]] = _nothing

    def promise(self, kind: str) -> Promise:
        """What is promised to this kind of request."""
        return {ISSUE: self.issue, LOOK_UP: self.look_up, MINE: self.mine}[kind]
