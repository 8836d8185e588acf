"""The worker, the queue or the shop breaks: every holder is told within a minute after it, and it counts once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

import psutil

from loadtest.faults.notifying import CHANNEL, QUEUE, NotificationFault, Scene, wait_for
from loadtest.testbed.http_receiver import Behaviour, answers, closes_after

RELAY = "relay"
PATIENCE_S = 2


@contextmanager
def channel_killed(scene: Scene) -> Iterator[None]:
    """Kill -9 of the process that sends, in the middle of a message; the worker starts another."""
    scene.shop.at_the_next(lambda: scene.part(CHANNEL).kill())
    yield


@contextmanager
def worker_killed(scene: Scene) -> Iterator[None]:
    """Kill -9 of the worker and all its parts, in the middle of a message; another is started afterwards."""
    killed: list[psutil.Process] = []

    def kill() -> None:
        supervisor = psutil.Process(scene.worker.process.pid)
        killed.extend([supervisor, *supervisor.children()])
        for one in killed:
            with suppress(psutil.NoSuchProcess):
                one.kill()

    scene.shop.at_the_next(kill)
    try:
        yield
        wait_for(lambda: bool(killed), "the worker is killed")
    finally:
        scene.worker = scene.stage.service.start_worker()


@contextmanager
def relay_killed(scene: Scene) -> Iterator[None]:
    """Kill -9 of the relay while jobs wait; the worker starts another."""
    with _queued(scene):
        scene.part(RELAY).kill()
    yield


@contextmanager
def queue_flushed(scene: Scene) -> Iterator[None]:
    """Redis forgets all jobs while some wait, and who has taken one dies with it."""
    with _queued(scene) as part, scene.redis() as redis:
        redis.flushall()
        part.kill()
    yield


@contextmanager
def queue_restarted(scene: Scene) -> Iterator[None]:
    """Redis is shut down and started, and has nothing any more."""
    with _queued(scene):
        scene.stage.service.valkey.end()
        scene.stage.service.valkey.start(scene.stage.service.home)
    yield


@contextmanager
def queue_poisoned(scene: Scene) -> Iterator[None]:
    """A job that nobody can read, and one that does not exist, lie before all others."""
    with scene.redis() as redis:
        redis.hset("rq:job:poison", mapping={"data": b"\x80nonsense", "created_at": "never", "status": "queued"})
        redis.lpush(QUEUE, "poison", "no-such-job")
    yield


@contextmanager
def _queued(scene: Scene) -> Iterator[psutil.Process]:
    """Jobs wait in the queue, since the process that sends does nothing during the block."""
    part = scene.part(CHANNEL)
    part.suspend()
    try:
        with scene.redis() as redis:
            wait_for(lambda: bool(redis.llen(QUEUE)), "jobs wait")
        yield part
    finally:
        with suppress(psutil.NoSuchProcess):
            part.resume()


def shop_that(behaviour: Callable[[Scene], Behaviour]) -> Callable[[Scene], AbstractContextManager[None]]:
    """The shop behaves like this during the block, and accepts everything afterwards."""

    @contextmanager
    def misbehaves(scene: Scene) -> Iterator[None]:
        scene.shop.behaves = behaviour(scene)
        try:
            yield
        finally:
            scene.shop.behaves = None

    return misbehaves


FAULTS = (
    NotificationFault(name="notifications: channel killed", happens=channel_killed),
    NotificationFault(name="notifications: worker killed", happens=worker_killed),
    NotificationFault(name="notifications: relay killed", happens=relay_killed),
    NotificationFault(name="notifications: queue flushed", happens=queue_flushed),
    NotificationFault(name="notifications: queue restarted", happens=queue_restarted),
    NotificationFault(name="notifications: queue poisoned", happens=queue_poisoned),
    NotificationFault(name="notifications: shop answers 500", happens=shop_that(lambda _: answers(500)), fails=True),
    NotificationFault(
        name="notifications: shop answers 429",
        happens=shop_that(lambda _: answers(429, Retry_After=str(PATIENCE_S))),
        fails=True,
    ),
    NotificationFault(
        name="notifications: shop answers 410",
        expected="what was refused for good is a dead letter",
        happens=shop_that(lambda _: answers(410)),
        fails=True,
        final=True,
    ),
    NotificationFault(name="notifications: shop hangs", happens=shop_that(lambda scene: scene.shop.hangs), fails=True),
    NotificationFault(
        name="notifications: shop hangs up half-way",
        happens=shop_that(lambda _: closes_after(b"HTTP/1.1 200 O")),
        fails=True,
    ),
)
