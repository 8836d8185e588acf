"""The wall clock of one machine jumps by an hour and back: only the database's decides what has opened."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from functools import partial

from loadtest.driver.http_client import HttpConnection, request_bytes
from loadtest.faults.fault import UNNOTICED, Fault, Preloaded, Promises, Shows, Stage, answers
from loadtest.faults.on_postgres import other_session

HOUR_S = 3600
# Two readings of two clocks may differ by this.
APART_S = 60.0

CLOCK = "SELECT extract(epoch FROM clock_timestamp())::float8"


def clock_of_postgresql(stage: Stage) -> float:
    """Return PostgreSQL's time, in seconds since 1970."""
    with other_session(stage) as db:
        row = db.execute(CLOCK).fetchone()
    assert row is not None
    return float(str(row[0]))


def clock_of_web(stage: Stage) -> float:
    """Return a web process's time, by the `Date` header of a response, in seconds since 1970."""
    connection = HttpConnection(stage.port)
    head = connection.exchange(request_bytes("GET", "/livez")).head.decode()
    connection.close()
    date = next(line.partition(":")[2].strip() for line in head.split("\r\n") if line.startswith("date:"))
    return parsedate_to_datetime(date).timestamp()


@contextmanager
def jumped(stage: Stage, by_s: int, clock: Callable[[Stage], float]) -> Iterator[None]:
    """Let the clock of running processes jump, and jump back at the end; negative: backwards."""
    assert stage.control is not None
    stage.control.set_clock(by_s)
    try:
        if abs(clock(stage) - time.time() - by_s) > APART_S:
            stage.broken.append("the clock has not jumped")
        yield
    finally:
        stage.control.set_clock(0)


web_jumps = partial(jumped, clock=clock_of_web)
postgresql_jumps = partial(jumped, clock=clock_of_postgresql)

FAULTS = (
    Fault(
        "web's clock an hour ahead",
        "no effect",
        partial(web_jumps, by_s=HOUR_S),
        UNNOTICED,
        preloaded=Preloaded.WEB,
    ),
    Fault(
        "web's clock an hour behind",
        "no effect",
        partial(web_jumps, by_s=-HOUR_S),
        UNNOTICED,
        preloaded=Preloaded.WEB,
    ),
    Fault(
        "PostgreSQL's clock an hour ahead",
        "no effect",
        partial(postgresql_jumps, by_s=HOUR_S),
        # The time-out of a statement that waits for a lock at that moment may fire at once.
        Promises(answers(201, 503, done=0.95)),
        preloaded=Preloaded.POSTGRESQL,
    ),
    Fault(
        "PostgreSQL's clock an hour behind",
        "it decides: the coupon has not opened yet",
        partial(postgresql_jumps, by_s=-HOUR_S),
        Promises(answers(201, 409, 503), shows=Shows.NOT_OPEN),
        preloaded=Preloaded.POSTGRESQL,
    ),
)
