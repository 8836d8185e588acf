"""Processes are killed and Redis forgets, again and again: every message arrives, and counts once.

`COUPON_TEST_CHAOS_S=60` makes the chaos as long as the promise says, with a thousand issuances.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from redis import Redis, RedisError

from couponapp.local.postgres import free_port
from couponapp.local.valkey import binary
from couponapp.notifying import jobs
from couponapp.planning.verify import verify
from couponapp.storage.pool import Pool
from tests.notifying import count, issue_to
from tests.receiver import SECRET, Receiver, answer, close_after, hang, running_receiver
from tests.servers import ROOT, end, service_environ, wait_until

NewCoupon = Callable[..., int]
CHAOS_S = float(os.environ.get("COUPON_TEST_CHAOS_S", "4"))
ISSUANCES = 1_000 if CHAOS_S >= 60 else 150
HEAL_S = 60.0
LEASE_S = 2
QUEUE = f"rq:queue:{jobs.queue_name('webhook')}"


class Queue:
    """A Redis that comes back under the same address, with nothing in it."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._directory = directory
        self.start()

    def start(self) -> None:
        command = [str(binary()), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir"]
        log = subprocess.DEVNULL
        self.process = subprocess.Popen([*command, str(self._directory)], stdout=log, stderr=log)
        wait_until(self.answers, timeout_s=20, what="Redis answers")

    def answers(self) -> bool:
        try:
            return bool(self.client().ping())
        except RedisError:
            return False

    def client(self) -> Redis:
        return Redis.from_url(self.url, socket_timeout=2)

    def restart(self) -> None:
        self.process.kill()
        self.process.wait(10)
        self.start()

    def end(self) -> None:
        self.process.kill()
        self.process.wait(10)


class Worker:
    """The worker with its parts, which can be killed."""

    def __init__(self, environ: dict[str, str], log: Path) -> None:
        self._environ = environ
        self._log = open(log, "ab")  # noqa: SIM115  # for as long as the worker runs
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "couponapp.worker"]
        self.process = subprocess.Popen(command, cwd=ROOT, env=self._environ, stdout=self._log, stderr=self._log)

    def part(self, name: str) -> psutil.Process | None:
        try:
            children = psutil.Process(self.process.pid).children()
            return next((one for one in children if one.cmdline()[-1:] == [name]), None)
        except psutil.Error:
            return None

    def kill(self, name: str) -> bool:
        """Kill -9 a part; tells whether there was one."""
        part = self.part(name)
        if part is None:
            return False
        part.kill()
        return True

    def kill_all(self) -> None:
        """Kill -9 the supervisor and its parts, and start another."""
        family = [self.process.pid, *(one.pid for one in psutil.Process(self.process.pid).children())]
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, 9)
        self.process.wait(10)
        self.start()

    def end(self) -> None:
        end(self.process)
        self._log.close()


class Stage:
    """A worker with the webhook channel, a shop that receives, and a Redis that can be lost."""

    def __init__(self, stack: ExitStack, directory: Path, database_url: str, pool: Pool, lease_s: int) -> None:
        self.pool = pool
        self.receiver: Receiver = stack.enter_context(running_receiver())
        self.redis = Queue(directory)
        stack.callback(self.redis.end)
        environ = service_environ(
            database_url,
            self.redis.url,
            COUPON_NOTIFY_CHANNELS="webhook",
            COUPON_NOTIFY_LEASE_S=str(lease_s),
            COUPON_NOTIFY_TIMEOUT_S="1",
            COUPON_NOTIFY_DIR=str(directory / "notifications"),
            COUPON_WEBHOOK_URL=self.receiver.url,
            COUPON_WEBHOOK_SECRET=SECRET,
            COUPON_WEBHOOK_PRIVATE="1",
            COUPON_LOG_LEVEL="warning",
        )
        self.worker = Worker(environ, directory / "worker.log")
        stack.callback(self.worker.end)

    def missing(self, issuances: list[int]) -> set[str]:
        """The keys that the shop has not accepted."""
        return {f"issuance_issued_{number}" for number in issuances} - set(self.receiver.accepted)

    def wait_until_told(self, issuances: list[int]) -> None:
        wait_until(
            lambda: not self.missing(issuances) and not count(self.pool, "sent_at IS NULL"),
            timeout_s=HEAL_S,
            what="all is delivered",
        )


OpenStage = Callable[..., Stage]


@pytest.fixture
def stage(tmp_path: Path, database_url: str, pool: Pool) -> Iterator[OpenStage]:
    with ExitStack() as stack:
        yield lambda lease_s=LEASE_S: Stage(stack, tmp_path, database_url, pool, lease_s)


@contextmanager
def frozen(process: psutil.Process | subprocess.Popen[bytes]) -> Iterator[None]:
    os.kill(process.pid, 19)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(process.pid, 18)


def test_a_process_that_is_killed_at_any_step_loses_nothing(stage: OpenStage, new_coupon: NewCoupon) -> None:
    on = stage()
    coupon_id, told = new_coupon(total=10_000), issue_to(on.pool, new_coupon(), "first")
    on.wait_until_told(told)

    def issue_some(step: str) -> None:
        told.extend(issue_to(on.pool, coupon_id, *(f"{step}-{number}" for number in range(30))))

    def once(act: Callable[[], object]) -> Callable[[str], None]:
        """At the next request that the shop gets."""

        def before(_: str) -> None:
            on.receiver.before = lambda key: None
            act()

        return before

    # A job that nobody can read, and one that is gone, lie before the others.
    redis = on.redis.client()
    redis.hset("rq:job:poison", mapping={"data": b"\x80nonsense", "created_at": "never", "status": "queued"})
    redis.rpush(QUEUE, "poison", "no-such-job")
    issue_some("poison")
    on.wait_until_told(told)

    # The channel's process, before the shop has accepted.
    on.receiver.before = once(lambda: on.worker.kill("webhook"))
    issue_some("before")
    on.wait_until_told(told)

    # The same, when the shop has accepted and nobody has noted it.
    on.receiver.next.append(lambda handler: (answer(204)(handler), on.worker.kill("webhook"))[0])
    issue_some("after")
    on.wait_until_told(told)

    # The supervisor with everything, in the middle of a message.
    on.receiver.before = once(on.worker.kill_all)
    issue_some("everything")
    on.wait_until_told(told)

    # The relay, when it has leased and Redis does not take the jobs.
    with frozen(on.redis.process):
        issue_some("relay")
        assert wait_until(lambda: on.worker.kill("relay"), timeout_s=20, what="the relay is there to be killed")
    on.wait_until_told(told)

    # Redis forgets what is queued, and then everything.
    webhook = wait_until(lambda: on.worker.part("webhook"), timeout_s=20, what="the channel runs")
    with frozen(webhook):
        issue_some("flushed")
        wait_until(lambda: on.redis.client().llen(QUEUE), timeout_s=20, what="jobs are queued")
        on.redis.client().flushall()
    issue_some("restarted")
    on.redis.restart()
    on.wait_until_told(told)
    assert verify(on.pool, coupon_id).coupons[0]["waiting"] == 0
    assert count(on.pool, "dead_at IS NOT NULL") == 0


def chaos(on: Stage, coupon_id: int, seconds: float, issuances: int, seed: int) -> list[int]:
    """Issue while everything is killed; returns the issuances once nobody is killed any more."""
    dice, released = random.Random(seed), threading.Event()
    misbehaviours = [answer(500), answer(429, Retry_After="1"), close_after(b"HTTP/1.1 2"), hang(released)]
    acts: list[Callable[[], object]] = [
        lambda: on.worker.kill("relay"),
        lambda: on.worker.kill("webhook"),
        lambda: on.worker.kill("webhook"),
        on.worker.kill_all,
        lambda: on.redis.client().flushall(),
        on.redis.restart,
        lambda: on.receiver.next.append(dice.choice(misbehaviours)),
    ]
    told: list[int] = []
    wait_until(lambda: on.worker.part("webhook"), timeout_s=20, what="the channel runs")
    end_s = time.monotonic() + seconds
    round_s = 0.4
    rounds = int(seconds / round_s)
    for number in range(rounds):
        size = issuances * (number + 1) // rounds - len(told)
        told += issue_to(on.pool, coupon_id, *(f"user-{number}-{n}" for n in range(size)))
        if number == rounds // 2:
            _lose_the_queue(on)
        else:
            dice.choice(acts)()
        time.sleep(max(0.0, min(round_s, end_s - time.monotonic())))
    released.set()
    on.receiver.next.clear()
    return told


def _lose_the_queue(on: Stage) -> None:
    """Sure to lose something: jobs are queued, their worker is gone, and Redis forgets them."""
    webhook = wait_until(lambda: on.worker.part("webhook"), timeout_s=20, what="the channel runs")
    with frozen(webhook):
        wait_until(lambda: on.redis.client().llen(QUEUE), timeout_s=20, what="jobs are queued")
        on.redis.client().flushall()
        webhook.kill()


@pytest.mark.timeout(CHAOS_S + HEAL_S + 120)
def test_after_any_number_of_random_kills_every_issuance_is_told_and_counts_once(
    stage: OpenStage, new_coupon: NewCoupon
) -> None:
    on = stage()
    seed = random.randrange(1_000_000)
    print(f"seed {seed}")  # noqa: T201  # shown when the test fails
    told = chaos(on, new_coupon(total=ISSUANCES), CHAOS_S, ISSUANCES, seed)
    on.wait_until_told(told)
    assert len(on.receiver.accepted) == len(told) == ISSUANCES
    assert count(on.pool, "dead_at IS NOT NULL") == 0
    assert verify(on.pool).clean


@pytest.mark.timeout(180)
def test_without_leases_that_run_out_the_same_kills_lose_messages(stage: OpenStage, new_coupon: NewCoupon) -> None:
    # The negative control of the test above.
    on = stage(lease_s=3_600)
    told = chaos(on, new_coupon(total=100), 2.0, 60, seed=4)
    wait_until(
        lambda: not count(on.pool, "sent_at IS NULL AND due_at <= now()"), timeout_s=HEAL_S, what="all is leased"
    )
    wait_until(lambda: not on.redis.client().llen(QUEUE), timeout_s=HEAL_S, what="all jobs are taken")
    wait_until(lambda: on.worker.part("webhook"), timeout_s=20, what="the channel runs")
    assert on.missing(told)
    # Not even the most patient shop would hear of them within the hour.
    assert count(on.pool, "sent_at IS NULL AND due_at > now() + interval '50 minutes'")
