"""The worker, the queue or the webhook receiver breaks: every holder is notified within a minute, and counts once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from functools import partial

import psutil

from loadtest.faults import on_redis
from loadtest.faults.fault import during
from loadtest.faults.notifying import CHANNEL, QUEUE, START_TIMEOUT_S, NotificationFault, NotificationStage
from loadtest.testbed.http_receiver import Behaviour, answers, closes_after
from loadtest.testbed.processes import kill
from loadtest.testbed.waiting import wait_until


@contextmanager
def channel_killed(stage: NotificationStage) -> Iterator[None]:
    """Kill the process that sends (SIGKILL) in the middle of an event; the worker starts another."""
    stage.receiver.at_the_next(lambda: stage.part(CHANNEL).kill())
    yield


@contextmanager
def worker_killed(stage: NotificationStage) -> Iterator[None]:
    """Kill the worker with all its processes (SIGKILL) in the middle of an event; start another afterwards."""
    worker = stage.worker.process
    stage.receiver.at_the_next(lambda: kill(stage.worker))
    try:
        yield
        wait_until(lambda: worker.poll() is not None, "the worker was not killed", timeout_s=START_TIMEOUT_S)
    finally:
        stage.worker = stage.service.start_worker()


@contextmanager
def relay_killed(stage: NotificationStage) -> Iterator[None]:
    """Kill the relay (SIGKILL) while jobs wait; the worker starts another."""
    with _queued(stage):
        stage.part("relay").kill()
    yield


@contextmanager
def queue_flushed(stage: NotificationStage) -> Iterator[None]:
    """Delete all jobs while some wait, and kill the process that has taken one."""
    with _queued(stage) as part, stage.redis() as redis:
        redis.flushall()
        part.kill()
    yield


@contextmanager
def queue_restarted(stage: NotificationStage) -> Iterator[None]:
    """Restart Redis, which is empty afterwards, while jobs wait."""
    with _queued(stage), on_redis.restarted(stage):
        pass
    yield


@contextmanager
def queue_poisoned(stage: NotificationStage) -> Iterator[None]:
    """Put a job that cannot be read, and one that does not exist, before all others."""
    with stage.redis() as redis:
        redis.hset("rq:job:poison", mapping={"data": b"\x80nonsense", "created_at": "never", "status": "queued"})
        redis.lpush(QUEUE, "poison", "no-such-job")
    yield


@contextmanager
def _queued(stage: NotificationStage) -> Iterator[psutil.Process]:
    """Let jobs wait in the queue, because the process that sends is stopped during the block."""
    part = stage.part(CHANNEL)
    part.suspend()
    try:
        with stage.redis() as redis:
            wait_until(lambda: redis.llen(QUEUE), "no jobs wait", timeout_s=START_TIMEOUT_S)
        yield part
    finally:
        with suppress(psutil.NoSuchProcess):
            part.resume()


def _receiver(name: str, behaviour: Callable[[NotificationStage], Behaviour]) -> NotificationFault:
    """Return the fault in which the receiver behaves like this until the block ends."""

    def happens(stage: NotificationStage) -> AbstractContextManager[None]:
        behave = partial(setattr, stage.receiver, "behaviour")
        return during(lambda: behave(behaviour(stage)), lambda: behave(None))

    return NotificationFault(f"notifications: receiver {name}", happens, fails=True)


FAULTS = (
    NotificationFault("notifications: channel killed", channel_killed),
    NotificationFault("notifications: worker killed", worker_killed),
    NotificationFault("notifications: relay killed", relay_killed),
    NotificationFault("notifications: queue flushed", queue_flushed),
    NotificationFault("notifications: queue restarted", queue_restarted),
    NotificationFault("notifications: queue poisoned", queue_poisoned),
    _receiver("answers 500", lambda _: answers(500)),
    _receiver("answers 429", lambda _: answers(429, Retry_After="2")),
    replace(_receiver("answers 410", lambda _: answers(410)), expected="a refused event is a dead letter", final=True),
    _receiver("hangs", lambda stage: stage.receiver.hang),
    _receiver("closes half-way", lambda _: closes_after(b"HTTP/1.1 200 O")),
)
