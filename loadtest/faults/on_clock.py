"""The wall clock of one machine jumps by an hour and back: only the database's decides what has opened."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from functools import partial

from loadtest.driver.http_client import HOST
from loadtest.faults.fault import UNNOTICED, Fault, Promises, Shows, Stage, answers, during
from loadtest.faults.on_postgres import other_session
from loadtest.faults.stands import preloaded_postgresql, preloaded_web
from loadtest.testbed.preload import Control, missing

HOUR_S = 3600
# Two readings of two clocks may differ by this.
APART_S = 60.0
TIMEOUT_S = 5.0

CLOCK = "SELECT extract(epoch FROM clock_timestamp())::float8"


def clock_of_postgresql(stage: Stage) -> float:
    """Return PostgreSQL's time, in seconds since 1970."""
    with other_session(stage) as db:
        return float(str(db.execute(CLOCK).fetchall()[0][0]))


def clock_of_web(stage: Stage) -> float:
    """Return a web process's time, by the `Date` header of a response, in seconds since 1970."""
    with urllib.request.urlopen(f"http://{HOST}:{stage.port}/livez", timeout=TIMEOUT_S) as response:
        return parsedate_to_datetime(response.headers["Date"]).timestamp()


@contextmanager
def jumped(stage: Stage, by_s: int, clock: Callable[[Stage], float]) -> Iterator[None]:
    """Let the clock of running processes jump, and jump back at the end; negative: backwards."""
    control = stage.fixture_as(Control)
    with during(lambda: control.set_clock(by_s), lambda: control.set_clock(0)):
        if abs(clock(stage) - time.time() - by_s) > APART_S:
            stage.broken.append("the clock has not jumped")
        yield


_web = partial(Fault, promises=UNNOTICED, serves=preloaded_web, lacks=missing)
_postgresql = partial(Fault, serves=preloaded_postgresql, lacks=missing)
# The time-out of a statement that waits for a lock when the clock jumps may fire at once.
NEARLY_UNNOTICED = Promises("no effect", answers(201, 503, done=0.95))
DECIDES = Promises("it decides: the coupon has not opened yet", answers(201, 409, 503), shows=Shows.NOT_OPEN)
FAULTS = (
    _web("web's clock an hour ahead", partial(jumped, by_s=HOUR_S, clock=clock_of_web)),
    _web("web's clock an hour behind", partial(jumped, by_s=-HOUR_S, clock=clock_of_web)),
    _postgresql(
        "PostgreSQL's clock an hour ahead", partial(jumped, by_s=HOUR_S, clock=clock_of_postgresql), NEARLY_UNNOTICED
    ),
    _postgresql("PostgreSQL's clock an hour behind", partial(jumped, by_s=-HOUR_S, clock=clock_of_postgresql), DECIDES),
)
