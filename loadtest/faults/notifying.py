"""Lets one fault of notifications happen while coupons are issued, and judges who was told."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field

import psutil
from redis import Redis

from couponapp.issuing.statement import issue
from couponapp.local.processes import Child
from couponapp.notifying import dead_letters, jobs
from couponapp.storage.pool import Row
from loadtest.driver.generator import Arrival, Result
from loadtest.faults import judge
from loadtest.faults.fault import BOUND_S, ISSUE, Stage
from loadtest.faults.host_load import HostLoad
from loadtest.faults.load import attempt, sender
from loadtest.faults.verdict import Verdict
from loadtest.testbed.service import running_service
from loadtest.testbed.webhook_receiver import WebhookReceiver, running_receiver

RATE_PER_S = 100
BEFORE_S, AFTER_S = 2.0, 5.0
# All is delivered within this after the fault is over.
HEAL_S = 60.0
START_TIMEOUT_S = 30.0
CHANNEL = "webhook"
QUEUE = f"rq:queue:{jobs.queue_name(CHANNEL)}"
SECRET = "whsec_" + base64.b64encode(b"a-webhook-secret-of-32-bytes-123").decode()
FIRST = "first"
WAITING = "SELECT count(*) AS n FROM outbox WHERE sent_at IS NULL"


@dataclass
class Scene:
    """What a fault can reach.

    Attributes:
        stage: the service under load.
        shop: who receives the events.
        worker: the relay and the channel.
    """

    stage: Stage
    shop: WebhookReceiver
    worker: Child

    def part(self, name: str) -> psutil.Process:
        """The worker's process of this name, once there is one."""
        found: list[psutil.Process] = []

        def find() -> bool:
            with suppress(psutil.Error):
                children = psutil.Process(self.worker.process.pid).children()
                found.extend(one for one in children if one.cmdline()[-1:] == [name])
            return bool(found)

        wait_for(find, f"the worker's {name} runs")
        return found[0]

    def redis(self) -> Redis:
        """The queue's server."""
        return Redis.from_url(self.stage.service.valkey.url, socket_timeout=2)


@dataclass(frozen=True, kw_only=True)
class NotificationFault:
    """One thing that breaks while coupons are issued.

    Attributes:
        name: what the table calls it.
        expected: in words.
        happens: the block in which it does.
        lasts_s: for how long at least, in seconds.
        fails: the shop must have refused something, or the fault has not reached it.
        final: what it refuses is refused for good.
    """

    name: str
    expected: str = "all told within 60 s, each once"
    happens: Callable[[Scene], AbstractContextManager[None]]
    lasts_s: float = 3.0
    fails: bool = False
    final: bool = False


def run(fault: NotificationFault, *, heal_s: float = HEAL_S, environ: Mapping[str, str] | None = None) -> Verdict:
    """Let one fault happen while coupons are issued, and wait until everybody is told.

    Args:
        fault: which.
        heal_s: how long to wait, in seconds.
        environ: settings that differ from the defaults.
    """
    machine = HostLoad()
    with (
        running_receiver() as shop,
        sender() as sending_from,
        running_service(**_channel(shop), **(environ or {})) as service,
    ):
        stage = Stage(service, service.start_web(), service.new_coupon(100_000))
        scene = Scene(stage, shop, service.start_worker())
        _begin(scene)
        users = [f"user-{number}" for number in range(int(RATE_PER_S * (BEFORE_S + fault.lasts_s + AFTER_S)))]
        arrivals = [Arrival(n / RATE_PER_S, ISSUE, attempt(stage, user), user) for n, user in enumerate(users)]
        sending = sending_from.begin(stage.port, arrivals)
        with machine.measuring():
            sending.sleep_until(BEFORE_S)
            began_s = sending.now_s()
            with fault.happens(scene):
                sending.sleep_until(began_s + fault.lasts_s)
            ended_s = sending.now_s()
            results = sending.results(60.0)
            told_s = _told_after_s(scene, lambda: sending.now_s() - ended_s, heal_s)
        course = Course(results, told_s, heal_s, shop, _keys(stage), dead_letters.oldest(service.pool, limit=100_000))
        broken = [
            *stage.broken,
            *broken_promises(fault, course),
            *judge.broken_records(service.postgres.url, judge.told_issued(results)),
        ]
    return Verdict(fault.name, fault.expected, seen(course), f"{heal_s:.0f} s", broken, machine.waited_ms)


@dataclass(frozen=True)
class Course:
    """What was seen.

    Attributes:
        results: of the attempts to issue.
        told_s: how long after the fault nothing waited any more, in seconds; None: never.
        heal_s: what it may be.
        shop: what came in.
        keys: of what there was to tell.
        dead: the dead letters.
    """

    results: Sequence[Result]
    told_s: float | None
    heal_s: float
    shop: WebhookReceiver
    keys: frozenset[str]
    dead: Sequence[Row] = field(default_factory=list)


def broken_promises(fault: NotificationFault, course: Course) -> Iterator[str]:
    """Every promise that was not kept, one sentence each."""
    if statuses := {one.status for one in course.results} - {201}:
        yield f"attempts to issue were answered {sorted(statuses)}"
    if (slowest_s := max((one.latency_s for one in course.results), default=0.0)) > BOUND_S:
        yield f"an attempt to issue took {slowest_s:.2f} s"
    buried = {f"issuance_issued_{row['issuance_id']}" for row in course.dead}
    if missing := course.keys - set(course.shop.accepted) - buried:
        yield f"{len(missing)} of {len(course.keys)} were not told"
    if course.told_s is None:
        yield f"after {course.heal_s:.0f} s something still waited"
    if strange := set(course.shop.accepted) - course.keys:
        yield f"{len(strange)} events of nothing that was issued"
    if buried and not fault.final:
        yield f"{len(buried)} dead letters without a cause, such as: {course.dead[0]['reason']}"
    if fault.final and len(buried) != course.shop.failed:
        yield f"{course.shop.failed} were refused for good, and {len(buried)} are dead letters"
    if fault.fails and not course.shop.failed:
        yield "the fault has not reached the shop, since it refused nothing"


def seen(course: Course) -> str:
    """What was measured, in short."""
    repeats = sum(course.shop.accepted.values()) - len(course.shop.accepted)
    parts = [
        f"{len(course.keys)} issued",
        f"{len(course.shop.accepted)} told",
        f"{repeats} repeats",
        *([f"{course.shop.failed} refused"] if course.shop.failed else []),
        *([f"{len(course.dead)} dead"] if course.dead else []),
        f"all after {'-' if course.told_s is None else f'{course.told_s:.1f}'} s",
    ]
    return ", ".join(parts)


def _channel(shop: WebhookReceiver) -> dict[str, str]:
    return {
        "COUPON_NOTIFY_CHANNELS": CHANNEL,
        "COUPON_WEBHOOK_URL": f"http://127.0.0.1:{shop.port}/",
        "COUPON_WEBHOOK_SECRET": SECRET,
        "COUPON_WEBHOOK_PRIVATE": "1",
    }


def _begin(scene: Scene) -> None:
    """One message has come through: everything runs."""
    issue(scene.stage.service.pool, scene.stage.coupon_id, FIRST)
    wait_for(lambda: bool(scene.shop.accepted), "the first message arrives")


def _told_after_s(scene: Scene, now_s: Callable[[], float], heal_s: float) -> float | None:
    """When nothing waited any more but dead letters, in seconds; None: not in time."""
    while True:
        row = scene.stage.service.pool.fetch_one(WAITING)
        assert row is not None
        if row["n"] == len(dead_letters.oldest(scene.stage.service.pool, limit=100_000)):
            return now_s()
        if now_s() > heal_s:
            return None
        time.sleep(0.1)


def _keys(stage: Stage) -> frozenset[str]:
    rows = stage.service.pool.fetch_all("SELECT id FROM issuances")
    return frozenset(f"issuance_issued_{row['id']}" for row in rows)


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Ask again and again until the answer is yes.

    Raises:
        RuntimeError: it was no for too long.
    """
    give_up_s = time.monotonic() + START_TIMEOUT_S
    while not condition():
        if time.monotonic() > give_up_s:
            raise RuntimeError(f"after {START_TIMEOUT_S:.0f} s still not: {what}")
        time.sleep(0.02)
