"""A worker, the receiver of its channel and a Redis, all of which a test may kill."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
from redis import Redis, RedisError

from couponapp.local.postgres import free_port
from couponapp.local.valkey import binary
from couponapp.notifying import jobs
from couponapp.storage.pool import Pool
from loadtest.testbed.service import start_worker
from tests.support.mailbox import Mailbox, running_mailbox
from tests.support.notifying import count
from tests.support.receiver import SECRET, Receiver, running_receiver
from tests.support.servers import END_TIMEOUT_S, service_environ, wait_until

HEAL_S = 60.0


class Queue:
    """A Redis that restarts empty at the same address."""

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
    """The worker and its parts."""

    def __init__(self, environ: dict[str, str], directory: Path) -> None:
        self._environ = environ
        self._directory = directory
        self.start()

    def start(self) -> None:
        self._child = start_worker(self._directory, self._environ, niceness=0)
        self.process = self._child.process

    def part(self, name: str) -> psutil.Process | None:
        try:
            children = psutil.Process(self.process.pid).children()
            return next((one for one in children if one.cmdline()[-1:] == [name]), None)
        except psutil.Error:
            return None

    def kill(self, name: str) -> bool:
        """Kill a part with SIGKILL; return whether it was running."""
        part = self.part(name)
        if part is None:
            return False
        part.kill()
        return True

    def kill_all(self) -> None:
        """Kill the supervisor and its parts with SIGKILL, and start a new one."""
        family = [self.process.pid, *(one.pid for one in psutil.Process(self.process.pid).children())]
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, 9)
        self.process.wait(10)
        self.start()

    def end(self) -> None:
        self._child.end(END_TIMEOUT_S)


class Stage:
    """A worker with one channel, that channel's receiver, and a Redis that can lose its data."""

    def __init__(
        self, stack: ExitStack, directory: Path, database_url: str, pool: Pool, *, channel: str, lease_s: int
    ) -> None:
        self.pool = pool
        self.channel = channel
        self.receiver: Receiver = stack.enter_context(running_receiver())
        self.mailbox: Mailbox = stack.enter_context(running_mailbox())
        self.end: Receiver | Mailbox = self.mailbox if channel == "email" else self.receiver
        self.queue = f"rq:queue:{jobs.queue_name(channel)}"
        self.redis = Queue(directory)
        stack.callback(self.redis.end)
        environ = service_environ(
            database_url,
            self.redis.url,
            COUPON_NOTIFY_CHANNELS=channel,
            COUPON_NOTIFY_LEASE_S=str(lease_s),
            COUPON_NOTIFY_TIMEOUT_S="1",
            COUPON_NOTIFY_DIR=str(directory / "notifications"),
            COUPON_WEBHOOK_URL=self.receiver.url,
            COUPON_WEBHOOK_SECRET=SECRET,
            COUPON_WEBHOOK_PRIVATE="1",
            COUPON_SMTP_URL=f"smtp+plain://127.0.0.1:{self.mailbox.port}",
            COUPON_EMAIL_FROM="coupons@shop.example",
            COUPON_EMAIL_TO="{user_id}@members.shop.example",
            COUPON_LOG_LEVEL="warning",
        )
        self.worker = Worker(environ, directory)
        stack.callback(self.worker.end)

    def missing(self, issuances: list[int]) -> set[str]:
        """Return the keys that the receiver has not accepted."""
        return {f"issuance_issued_{number}" for number in issuances} - set(self.end.accepted)

    def channel_part(self) -> psutil.Process:
        """Wait for the sending process and return it."""
        found = wait_until(lambda: self.worker.part(self.channel), timeout_s=20, what="the channel runs")
        assert isinstance(found, psutil.Process)
        return found

    def wait_until_delivered(self, issuances: list[int]) -> None:
        wait_until(
            lambda: not self.missing(issuances) and not count(self.pool, "sent_at IS NULL"),
            timeout_s=HEAL_S,
            what="everything is delivered",
        )


@contextmanager
def frozen(process: psutil.Process | subprocess.Popen[bytes]) -> Iterator[None]:
    """Stop the process until the block ends."""
    os.kill(process.pid, 19)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(process.pid, 18)
