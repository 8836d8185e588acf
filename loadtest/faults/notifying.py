"""Lets one fault of notifications happen while coupons are issued, and checks that every holder is notified."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field

import psutil
from redis import Redis

from couponapp.issuing.statement import issue
from couponapp.local.processes import Child
from couponapp.notifying import dead_letters, jobs
from couponapp.storage.pool import Pool, Row
from loadtest.driver.background import sending_process
from loadtest.driver.generator import Result, open_loop
from loadtest.faults import judge
from loadtest.faults.fault import BOUND_S, Stage
from loadtest.faults.host_load import HostLoad
from loadtest.faults.load import BEFORE_S, Load, attempts
from loadtest.faults.verdict import Verdict
from loadtest.testbed.service import running_service
from loadtest.testbed.waiting import wait_until
from loadtest.testbed.webhook_receiver import WebhookReceiver, channel_to, running_receiver

RATE_PER_S = 100
AFTER_S = 5.0
# Everything is delivered within this after the fault.
HEAL_S = 60.0
START_TIMEOUT_S = 30.0
MAX_DEAD = 100_000
CHANNEL = "webhook"
QUEUE = f"rq:queue:{jobs.queue_name(CHANNEL)}"
WAITING = "SELECT count(*) AS n FROM outbox WHERE sent_at IS NULL"


@dataclass(kw_only=True)
class NotificationStage(Stage):
    """What a fault can reach.

    Attributes:
        receiver: receives the events.
        worker: the relay and the channel.
    """

    receiver: WebhookReceiver
    worker: Child

    def part(self, name: str) -> psutil.Process:
        """Return the worker's process of this name, once there is one."""

        def find() -> list[psutil.Process]:
            with suppress(psutil.Error):
                children = psutil.Process(self.worker.process.pid).children()
                return [one for one in children if one.cmdline()[-1:] == [name]]
            return []

        return wait_until(find, f"the worker's {name} does not run", timeout_s=START_TIMEOUT_S)[0]

    def redis(self) -> Redis:
        """Return a client of the queue's server."""
        return Redis.from_url(self.service.valkey.url, socket_timeout=2)


@dataclass(frozen=True)
class NotificationFault:
    """One thing that breaks while coupons are issued.

    Attributes:
        name: in the table.
        happens: the block during which it is broken.
        expected: in words.
        lasts_s: how long the block lasts at least, in seconds.
        fails: the receiver must have refused something, or the fault has not reached it.
        final: what the receiver refuses becomes a dead letter.
    """

    name: str
    happens: Callable[[NotificationStage], AbstractContextManager[None]]
    expected: str = "all notified within 60 s, each once"
    lasts_s: float = 3.0
    fails: bool = False
    final: bool = False


def run(fault: NotificationFault, *, heal_s: float = HEAL_S, environ: Mapping[str, str] | None = None) -> Verdict:
    """Let one fault happen while coupons are issued, and wait until every holder is notified.

    Args:
        fault: the fault.
        heal_s: how long to wait, in seconds.
        environ: settings that differ from the defaults.
    """
    host_load = HostLoad()
    with (
        running_receiver() as receiver,
        sending_process(open_loop) as process,
        running_service(**channel_to(receiver.port), **(environ or {})) as service,
    ):
        port, coupon_id = service.start_web(), service.new_coupon(100_000)
        stage = NotificationStage(service, port, coupon_id, receiver=receiver, worker=service.start_worker())
        issue(service.pool, coupon_id, "first")
        wait_until(lambda: receiver.accepted, "the first event does not arrive", timeout_s=START_TIMEOUT_S)
        users = [f"user-{number}" for number in range(int(RATE_PER_S * (BEFORE_S + fault.lasts_s + AFTER_S)))]
        load = Load(process, stage.port, attempts(stage, users, RATE_PER_S))
        with host_load.measuring():
            _, ended_s, results = load.run_through(fault.happens(stage), fault.lasts_s)
            done_s = _done_after_s(service.pool, lambda: load.now_s() - ended_s, heal_s)
        keys = frozenset(f"issuance_issued_{row['id']}" for row in service.pool.fetch_all("SELECT id FROM issuances"))
        dead = dead_letters.oldest(service.pool, limit=MAX_DEAD)
        deliveries = Deliveries(results, done_s, heal_s, receiver, keys, dead)
        broken = [
            *stage.broken,
            *broken_promises(fault, deliveries),
            *judge.broken_records(service.postgres.url, judge.shown_issued(results)),
        ]
    return Verdict(fault.name, fault.expected, seen(deliveries), f"{heal_s:.0f} s", broken, host_load.waited_ms)


@dataclass(frozen=True)
class Deliveries:
    """What was seen.

    Attributes:
        results: of the attempts to issue.
        done_s: how long after the fault nothing waited for delivery any more, in seconds; None: not in time.
        heal_s: maximum of `done_s`.
        receiver: with what it has received.
        keys: of all events that there were.
        dead: the dead letters.
    """

    results: Sequence[Result]
    done_s: float | None
    heal_s: float
    receiver: WebhookReceiver
    keys: frozenset[str]
    dead: Sequence[Row] = field(default_factory=list)


def broken_promises(fault: NotificationFault, deliveries: Deliveries) -> Iterator[str]:
    """Yield every broken promise, one sentence each."""
    accepted, failed = set(deliveries.receiver.accepted), deliveries.receiver.failed
    if statuses := {one.status for one in deliveries.results} - {201}:
        yield f"attempts to issue got {sorted(statuses)}"
    if (slowest_s := max((one.latency_s for one in deliveries.results), default=0.0)) > BOUND_S:
        yield f"an attempt to issue took {slowest_s:.2f} s"
    dead = {f"issuance_issued_{row['issuance_id']}" for row in deliveries.dead}
    if missing := deliveries.keys - accepted - dead:
        yield f"{len(missing)} of {len(deliveries.keys)} were not delivered"
    if deliveries.done_s is None:
        yield f"after {deliveries.heal_s:.0f} s something still waited"
    if unknown := accepted - deliveries.keys:
        yield f"{len(unknown)} events without an issuance"
    if dead and not fault.final:
        yield f"{len(dead)} dead letters without a cause, such as: {deliveries.dead[0]['reason']}"
    if fault.final and len(dead) != failed:
        yield f"{failed} were refused for good, and {len(dead)} are dead letters"
    if fault.fails and not failed:
        yield "the fault has not reached the receiver: it refused nothing"


def seen(deliveries: Deliveries) -> str:
    """Return what was measured, in short."""
    accepted, failed = deliveries.receiver.accepted, deliveries.receiver.failed
    parts = [
        f"{len(deliveries.keys)} issued",
        f"{len(accepted)} delivered",
        f"{accepted.total() - len(accepted)} repeats",
        *([f"{failed} refused"] if failed else []),
        *([f"{len(deliveries.dead)} dead"] if deliveries.dead else []),
        f"all after {'-' if deliveries.done_s is None else f'{deliveries.done_s:.1f}'} s",
    ]
    return ", ".join(parts)


def _done_after_s(pool: Pool, now_s: Callable[[], float], heal_s: float) -> float | None:
    """Return when nothing but dead letters waited any more, in seconds; None: not in time."""
    while now_s() <= heal_s:
        waiting = pool.fetch_all(WAITING)[0]["n"]
        if waiting == len(dead_letters.oldest(pool, limit=MAX_DEAD)):
            return now_s()
        time.sleep(0.1)
    return None
