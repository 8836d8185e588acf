"""Redis breaks: issuing goes on, each process with its own counters."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager

import psutil
from redis import Redis, RedisError

from loadtest.driver.http_client import HttpConnection
from loadtest.faults.fault import Behind, Fault, Shows, Stage, answers
from loadtest.faults.load import attempt
from loadtest.faults.watch import counting_in_redis, samples
from loadtest.testbed.service import WEB_PROCESSES

SLOW_S = 0.2
USED_AGAIN_WITHIN_S = 60.0
GOES_ON = answers(201)


def redis_process(stage: Stage) -> psutil.Process:
    """The server."""
    assert stage.service.valkey.child is not None
    return psutil.Process(stage.service.valkey.child.process.pid)


@contextmanager
def killed(stage: Stage) -> Iterator[None]:
    """Kill -9, and a new and empty one afterwards."""
    redis_process(stage).kill()
    try:
        yield
    finally:
        stage.service.valkey.end()
        stage.service.valkey.start(stage.service.home)


@contextmanager
def frozen(stage: Stage) -> Iterator[None]:
    """It accepts connections, and answers nothing."""
    process = redis_process(stage)
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def slowed(stage: Stage) -> AbstractContextManager[None]:
    """Each answer comes, but late."""
    return stage.answers_late(SLOW_S)


@contextmanager
def flushed(stage: Stage) -> Iterator[None]:
    """All counters and all loaded scripts are gone at once."""
    with Redis.from_url(stage.service.valkey.url) as redis:
        redis.flushall()
        redis.script_flush()
    yield


@contextmanager
def restarted(stage: Stage) -> Iterator[None]:
    """Shut down cleanly and started at once."""
    stage.service.valkey.end()
    stage.service.valkey.start(stage.service.home)
    yield


def is_used_again(stage: Stage) -> Iterable[str]:
    """All processes count in Redis again, within the promised time, and say so."""
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
    # Nothing else keeps anything there: no worker runs.
    try:
        return bool(redis.dbsize())
    except RedisError:
        return False


FAULTS = (
    Fault(
        name="Redis killed",
        expected="issuing goes on, no 5xx",
        happens=killed,
        issue=GOES_ON,
        shows=Shows.OWN_COUNTERS,
        afterwards=is_used_again,
    ),
    Fault(
        name="Redis frozen",
        expected="issuing goes on, no 5xx",
        happens=frozen,
        issue=GOES_ON,
        shows=Shows.OWN_COUNTERS,
        afterwards=is_used_again,
    ),
    Fault(
        name="Redis slowed",
        expected="200 ms an answer: as if it were away",
        happens=slowed,
        issue=GOES_ON,
        shows=Shows.OWN_COUNTERS,
        behind=Behind.REDIS,
        afterwards=is_used_again,
    ),
    Fault(
        name="Redis flushed",
        expected="nothing is noticed",
        happens=flushed,
        issue=GOES_ON,
        lasts_s=1.0,
        afterwards=is_used_again,
    ),
    Fault(
        name="Redis restarted",
        expected="issuing goes on, no 5xx",
        happens=restarted,
        issue=GOES_ON,
        lasts_s=1.0,
        afterwards=is_used_again,
    ),
)
