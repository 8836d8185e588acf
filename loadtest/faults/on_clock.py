"""The wall clock of one machine jumps by an hour and back: only the database's decides, and only what has opened."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from email.utils import parsedate_to_datetime
from functools import partial

from loadtest.driver.http_client import HttpConnection, request_bytes
from loadtest.faults.fault import Fault, Preloaded, Shows, Stage, answers
from loadtest.faults.on_postgres import stranger

HOUR_S = 3600
# What two looks at two clocks may be apart.
APART_S = 60.0

CLOCK = "SELECT extract(epoch FROM clock_timestamp())::float8"


def clock_of_postgresql(stage: Stage) -> float:
    """What it takes for the time, in seconds since 1970."""
    with stranger(stage) as db:
        row = db.execute(CLOCK).fetchone()
    assert row is not None
    return float(str(row[0]))


def clock_of_web(stage: Stage) -> float:
    """What a web process takes for the time, by the `Date` of an answer, in seconds since 1970."""
    connection = HttpConnection(stage.port)
    head = connection.exchange(request_bytes("GET", "/livez")).head.decode()
    connection.close()
    date = next(line.partition(":")[2].strip() for line in head.split("\r\n") if line.startswith("date:"))
    return parsedate_to_datetime(date).timestamp()


@contextmanager
def jumped(stage: Stage, by_s: int, clock: Callable[[Stage], float]) -> Iterator[None]:
    """So many seconds ahead, at once, in processes that run; right again when the block ends, at once as well."""
    assert stage.control is not None
    stage.control.set_clock(by_s)
    try:
        if abs(clock(stage) - time.time() - by_s) > APART_S:
            stage.broken.append("the clock has not jumped")
        yield
    finally:
        stage.control.set_clock(0)


def jumps(by_s: int, clock: Callable[[Stage], float]) -> Callable[[Stage], AbstractContextManager[None]]:
    """The fault in which this clock jumps by so many seconds."""
    return partial(jumped, by_s=by_s, clock=clock)


FAULTS = (
    Fault(
        name="web's clock an hour ahead",
        expected="nothing is noticed",
        happens=jumps(HOUR_S, clock_of_web),
        issue=answers(201),
        preloaded=Preloaded.WEB,
    ),
    Fault(
        name="web's clock an hour behind",
        expected="nothing is noticed",
        happens=jumps(-HOUR_S, clock_of_web),
        issue=answers(201),
        preloaded=Preloaded.WEB,
    ),
    Fault(
        name="PostgreSQL's clock an hour ahead",
        expected="nothing is noticed",
        happens=jumps(HOUR_S, clock_of_postgresql),
        # The time-out of a statement that waits for a lock just then may come at once.
        issue=answers(201, 503, done=0.95),
        preloaded=Preloaded.POSTGRESQL,
    ),
    Fault(
        name="PostgreSQL's clock an hour behind",
        expected="it decides: the coupon has not opened yet",
        happens=jumps(-HOUR_S, clock_of_postgresql),
        issue=answers(201, 409, 503),
        shows=Shows.NOT_OPEN,
        preloaded=Preloaded.POSTGRESQL,
    ),
)
