"""The worker process: `python -m couponapp.worker` runs the relay and the RQ worker.

Each runs in a child of its own, because RQ's job time-outs need a main thread. A child that
dies is started again; TERM or Ctrl-C ends both.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import subprocess
import sys
import threading

from rq.worker import SimpleWorker

from couponapp import logs, settings
from couponapp.errors import CouponAppError
from couponapp.notifying import jobs
from couponapp.notifying.channels import FileChannel
from couponapp.notifying.relay import QUEUE_NAME, Relay
from couponapp.settings import Settings
from couponapp.signals import StopSignal
from couponapp.storage.pool import Pool, Timeouts
from couponapp.storage.redis import connect

log = logging.getLogger(__name__)

PARTS = ("relay", "jobs")
RESTART_DELAY_S = 1.0
END_TIMEOUT_S = 8.0
DATABASE_DEADLINE_MS = 5_000
REDIS_TIMEOUT_S = 2.0
WORKER_TTL_S = 30
DEQUEUE_TIMEOUT_S = 2
SILENT_TIMEOUT_S = 4


def main(arguments: list[str] | None = None) -> int:
    """Run the worker until TERM or Ctrl-C; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m couponapp.worker", description=__doc__)
    parser.add_argument("--part", choices=PARTS, help="run only this part, in this process")
    parser.add_argument("--parent", type=int, help="end when this process is no longer the parent")
    given = parser.parse_args(arguments)
    part = given.part
    os.umask(0o077)  # messages hold codes that are worth money
    try:
        config = settings.load()
        config.require_for_worker()
        settings.make_directory(config, "notify_dir")
    except CouponAppError as error:
        print(f"couponapp: {error}", file=sys.stderr)
        return 1
    logs.configure(config.log_level)
    if part is None:
        return _supervise()
    if given.parent is not None:
        _end_with_parent(given.parent)
    return _run_relay(config) if part == "relay" else _run_jobs(config)


def _supervise() -> int:
    stop = _stop_on_signal()
    children: dict[str, subprocess.Popen[bytes]] = {}
    while not stop.is_set():
        for part in PARTS:
            child = children.get(part)
            if child is not None and child.poll() is None:
                continue
            if child is not None:
                log.warning("worker: %s ended with %s, starting it again", part, child.returncode)
            children[part] = _start(part)
        stop.wait(RESTART_DELAY_S)
    for child in children.values():
        child.terminate()
    for child in children.values():
        try:
            child.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
    return 0


def _start(part: str) -> subprocess.Popen[bytes]:
    # The parent's pid is told, not asked for: it may be dead before the child is awake.
    own_pid = str(os.getpid())
    return subprocess.Popen([sys.executable, "-m", "couponapp.worker", "--parent", own_pid, "--part", part])


def _run_relay(config: Settings) -> int:
    redis = connect(config.queue_url, timeout_s=REDIS_TIMEOUT_S)
    Relay(_pool(config, "relay"), redis, lease_s=config.notify_lease_s).run(_stop_on_signal())
    return 0


def _run_jobs(config: Settings) -> int:
    channel = FileChannel(config.notify_dir, config.time_zone)
    jobs.configure(jobs.Delivery(_pool(config, "jobs"), channel))
    redis = connect(config.queue_url, timeout_s=REDIS_TIMEOUT_S)
    JobWorker([QUEUE_NAME], connection=redis, worker_ttl=WORKER_TTL_S).work(logging_level=None)
    return 0


class JobWorker(SimpleWorker):
    """Takes jobs from the queue. No fork per job: a send is short, and its failure harms nothing else.

    It waits for a job in short turns. RQ reads every answer with the time-out of the longest wait,
    and meets several connections in turn when a master has frozen: 25 s for each of them.
    """

    # Between two tries while Redis is away; RQ's own grows to a minute.
    max_connection_wait_time = 5.0

    @property
    def dequeue_timeout(self) -> int:
        """Seconds that one turn lasts."""
        return DEQUEUE_TIMEOUT_S

    @property
    def connection_timeout(self) -> int:
        """Seconds after which a Redis that does not answer is given up; longer than a turn."""
        return SILENT_TIMEOUT_S


def _pool(config: Settings, name: str) -> Pool:
    return Pool(config.database_url, name=name, max_size=2, timeouts=Timeouts.within(DATABASE_DEADLINE_MS))


def _stop_on_signal() -> StopSignal:
    return StopSignal(signal.SIGTERM, signal.SIGINT)


def _end_with_parent(parent: int) -> None:
    """A child must not outlive a supervisor that was killed."""

    def watch() -> None:
        while os.getppid() == parent:
            threading.Event().wait(1.0)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
