"""What a fault is: how it happens, and what is promised during and after it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

from loadtest.testbed.service import Service

# The deadline of an attempt, and what this machine may add to it.
BOUND_S = 1.5
# Where PostgreSQL answers look-ups, 99 of 100 take at most this.
READ_P99_S = 0.1
# Pools heal within this after PostgreSQL answers again; a circuit that has opened takes longer.
POOLS_HEAL_S = 2.0
CIRCUIT_CLOSES_S = 6.0

KINDS = ISSUE, LOOK_UP, MINE = "issue", "look-up", "my coupons"

T = TypeVar("T")


@dataclass
class Stage:
    """What a fault can reach.

    Attributes:
        service: the servers.
        port: of the server that gets the load.
        coupon_id: the coupon that is being issued.
        fixture: what the fault's `serves` has set up for its own use.
        moved_to: PostgreSQL's address where it is no longer the service's.
        broken: promises that only the fault itself can see broken, one sentence each.
    """

    service: Service
    port: int
    coupon_id: int
    fixture: object = None
    moved_to: str = ""
    broken: list[str] = field(default_factory=list)

    def fixture_as(self, kind: type[T]) -> T:
        """Return the fixture, which must be of this class."""
        assert isinstance(self.fixture, kind)
        return self.fixture


@contextmanager
def during(begin: Callable[[], object], end: Callable[[], object]) -> Iterator[None]:
    """Call one function before the block, and another after it in any case."""
    begin()
    try:
        yield
    finally:
        end()


# Starts the servers; returns the port that gets the load.
Serves = Callable[[Stage, ExitStack], int]


def web(stage: Stage, stack: ExitStack) -> int:
    """Start a web server."""
    return stage.service.start_web()


class Lost(Enum):
    """The requests that may stay without a response."""

    NONE = "no response is lost"
    UNDER_WAY = "only requests that a killed process was handling"
    NEWCOMERS = "only requests that arrive after it"
    FEW = "requests on a connection that is just being closed"


class Shows(Enum):
    """How it is seen that the fault has reached the service; one that has not proves nothing."""

    NOTHING = "the fault checks it"
    REFUSALS = "some attempts are refused"
    NOT_OPEN = "some attempts get NOT_OPEN"
    OWN_COUNTERS = "some process counts its limits by itself"


@dataclass(frozen=True)
class Promise:
    """What the responses to one kind of request must be during the fault.

    Attributes:
        statuses: the allowed ones.
        p99_s: maximum latency of 99 of 100 requests, in seconds.
        done: share that must succeed, where work continues during the fault.
    """

    statuses: frozenset[int]
    p99_s: float = BOUND_S
    done: float = 0.0


def answers(*statuses: int, p99_s: float = BOUND_S, done: float = 0.0) -> Promise:
    """Return a promise; see there for the arguments."""
    return Promise(frozenset(statuses), p99_s, done)


ALIVE = answers(200, p99_s=READ_P99_S)


@dataclass(frozen=True)
class Promises:
    """What is promised during a fault.

    Attributes:
        in_words: for the table.
        issue: about attempts to issue.
        look_up: about look-ups of the coupon.
        mine: about «my coupons».
        shows: how the fault is noticed.
    """

    in_words: str
    issue: Promise
    look_up: Promise = ALIVE
    mine: Promise = ALIVE
    shows: Shows = Shows.NOTHING

    def of(self, kind: str) -> Promise:
        """Return the promise about this kind of request."""
        return {ISSUE: self.issue, LOOK_UP: self.look_up, MINE: self.mine}[kind]


# Look-ups from the cache, which may first wait 0.3 s for a fresh value.
CACHED = answers(200, p99_s=0.4)
UNNOTICED = Promises("no effect", answers(201))
# While processes are replaced reads may be slower.
NOTHING_LOST = Promises("no response is lost", answers(201), answers(200), answers(200))
REFUSES = Promises("503; the other endpoints alive", answers(201, 503), shows=Shows.REFUSALS)
WITHOUT_POSTGRESQL = Promises(
    "503; look-ups from the cache; no issuance is lost", answers(201, 503), CACHED, answers(200, 503), Shows.REFUSALS
)
WITHOUT_REDIS = Promises("issuing continues, no 5xx", answers(201), shows=Shows.OWN_COUNTERS)


@dataclass(frozen=True)
class Fault:
    """One thing that breaks in the middle of a load.

    Attributes:
        name: in the table.
        happens: the block during which it is broken.
        promises: what holds meanwhile.
        lost: which requests may stay without a response.
        loses_after_s: how long after its beginning the first response may be lost, in seconds.
        lasts_s: how long the block lasts, in seconds.
        back_s: how long after it all is well again, in seconds, unless the circuit has opened.
        mending_s: how long it may take to restart what it has ended, in seconds.
        rate_per_s: attempts to issue per second.
        look_ups_connect_anew: each look-up uses a new connection.
        serves: starts the servers.
        lacks: returns what the fault needs and this machine does not have, in words; it is skipped then.
        afterwards: checks when all is over; returns what is still broken, one sentence each.
    """

    name: str
    happens: Callable[[Stage], AbstractContextManager[None]]
    promises: Promises
    lost: Lost = Lost.NONE
    loses_after_s: float = 0.0
    lasts_s: float = 3.0
    back_s: float = POOLS_HEAL_S
    mending_s: float = 1.5
    rate_per_s: int = 100
    look_ups_connect_anew: bool = False
    serves: Serves = web
    lacks: Callable[[], str] = str
    afterwards: Callable[[Stage], Iterable[str]] = lambda _: ()
