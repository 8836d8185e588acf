"""Redis breaks: issuing continues, each process with its own counters."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from redis import Redis, RedisError

from loadtest.driver.http_client import HttpConnection
from loadtest.faults.fault import UNNOTICED, WITHOUT_REDIS, Fault, Stage, during
from loadtest.faults.load import attempt
from loadtest.faults.metrics_watch import counting_in_redis, samples
from loadtest.faults.stands import RELAY_TO_REDIS, slowed
from loadtest.testbed.processes import kill, suspended
from loadtest.testbed.service import WEB_PROCESSES

SLOW_S = 0.2
USED_AGAIN_WITHIN_S = 60.0


def killed(stage: Stage) -> AbstractContextManager[None]:
    """Kill it (SIGKILL); start a new, empty one afterwards."""
    return during(lambda: kill(stage.service.valkey.child), stage.service.start_valkey)


def frozen(stage: Stage) -> AbstractContextManager[None]:
    """Let it accept connections and answer nothing."""
    return suspended(stage.service.valkey.child)


@contextmanager
def flushed(stage: Stage) -> Iterator[None]:
    """Delete all counters and all loaded scripts at once."""
    with Redis.from_url(stage.service.valkey.url) as redis:
        redis.flushall()
        redis.script_flush()
    yield


@contextmanager
def restarted(stage: Stage) -> Iterator[None]:
    """Shut it down cleanly and start it at once."""
    stage.service.valkey.end()
    stage.service.start_valkey()
    yield


def is_used_again(stage: Stage) -> Iterable[str]:
    """Check that all processes count in Redis again within the promised time, and report it."""
    connection, give_up_s = HttpConnection(stage.port), time.monotonic() + USED_AGAIN_WITHIN_S
    with Redis.from_url(stage.service.valkey.url, socket_timeout=1) as redis:
        redis.flushall()
        while counting_in_redis(samples(stage.port)) < WEB_PROCESSES or not _has_counters(redis):
            if time.monotonic() > give_up_s:
                yield f"Redis was not used again within {USED_AGAIN_WITHIN_S:.0f} s"
                break
            connection.exchange(attempt(stage, f"user-after-{time.monotonic()}"))
            time.sleep(0.1)
    connection.close()


def _has_counters(redis: Redis) -> bool:
    # Nothing else is kept there: no worker runs.
    try:
        return bool(redis.dbsize())
    except RedisError:
        return False


_fault = partial(Fault, afterwards=is_used_again)
FAULTS = (
    _fault("Redis killed", killed, WITHOUT_REDIS),
    _fault("Redis frozen", frozen, WITHOUT_REDIS),
    _fault("Redis slowed", partial(slowed, delay_s=SLOW_S), WITHOUT_REDIS, serves=RELAY_TO_REDIS),
    _fault("Redis flushed", flushed, UNNOTICED, lasts_s=1.0),
    _fault("Redis restarted", restarted, UNNOTICED, lasts_s=1.0),
)
