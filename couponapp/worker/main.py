"""`python -m couponapp.worker` runs the relay and one RQ worker per channel.

Each part is a child process, because RQ's job time-outs need a main thread, and so that a slow channel
delays no other. A child that dies is restarted; TERM or Ctrl-C stops all. `--part` runs one part alone.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import subprocess
import sys
import threading

from couponapp import logs
from couponapp.config import settings
from couponapp.config.parsers import CHANNELS
from couponapp.config.settings import Settings
from couponapp.errors import ConfigurationError, CouponAppError
from couponapp.notifying import archive, jobs
from couponapp.notifying.channels import Channel
from couponapp.notifying.channels.email.channel import EmailChannel
from couponapp.notifying.channels.file.channel import FileChannel
from couponapp.notifying.channels.webhook.channel import WebhookChannel
from couponapp.notifying.relay import Relay
from couponapp.notifying.throttle import Throttle
from couponapp.signals import StopSignal
from couponapp.storage.pool import Pool, Timeouts
from couponapp.storage.redis import connect
from couponapp.worker.metrics import WorkerMetrics, serve_own
from couponapp.worker.rq_worker import ChannelWorker

log = logging.getLogger(__name__)

RELAY = "relay"
RESTART_DELAY_S = 1.0
END_TIMEOUT_S = 8.0
DATABASE_DEADLINE_MS = 5_000
REDIS_TIMEOUT_S = 2.0
HOUR_S = 3_600.0
# As for the other channels: deliveries take no more than a tenth of two cores from issuing.
FILE_RATE = "350/second"


def main(arguments: list[str] | None = None) -> int:
    """Run the worker until TERM or Ctrl-C; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m couponapp.worker", description=__doc__)
    parser.add_argument("--part", choices=(RELAY, *CHANNELS), help="run only the relay, or only this channel")
    parser.add_argument("--parent", type=int, help="exit when this process is no longer the parent")
    given = parser.parse_args(arguments)
    part = given.part
    os.umask(0o077)  # notifications contain codes that are worth money
    try:
        config = settings.load()
        config.require_for_worker()
        if part not in (None, RELAY, *config.notify_channels):
            raise ConfigurationError(f"COUPON_NOTIFY_CHANNELS does not name {part}")
        settings.make_directory(config, "notify_dir")
        logs.configure(config.log_level)
        metrics = WorkerMetrics(config) if part is None else None
        if part is not None and given.parent is None:
            serve_own(config)
    except CouponAppError as error:
        print(f"couponapp: {error}", file=sys.stderr)
        return 1
    if metrics is not None:
        return _supervise((RELAY, *config.notify_channels), metrics)
    if given.parent is not None:
        _end_with_parent(given.parent)
    return _run_relay(config) if part == RELAY else _run_jobs(config, part)


def _supervise(parts: tuple[str, ...], metrics: WorkerMetrics) -> int:
    stop = _stop_on_signal()
    children = {part: _start(part, metrics.environ()) for part in parts}
    while not stop.wait(RESTART_DELAY_S):
        for part, child in children.items():
            if child.poll() is not None:
                log.warning("worker: %s ended with %s, restarting it", part, child.returncode)
                metrics.forget(child.pid)
                children[part] = _start(part, metrics.environ())
    for child in children.values():
        child.terminate()
    for child in children.values():
        try:
            child.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
    return 0


def _start(part: str, environ: dict[str, str]) -> subprocess.Popen[bytes]:
    # Passed on, because a parent that dies early would leave the child asking for another pid.
    own_pid = str(os.getpid())
    command = [sys.executable, "-m", "couponapp.worker", "--parent", own_pid, "--part", part]
    return subprocess.Popen(command, env=environ)


def _run_relay(config: Settings) -> int:
    relay = Relay(
        _pool(config, "relay"),
        connect(config.queue_url, timeout_s=REDIS_TIMEOUT_S),
        channels=config.notify_channels,
        throttles={name: _throttle(config, name) for name in config.notify_channels},
        lease_s=config.notify_lease_s,
        give_up_s=config.notify_give_up_h * HOUR_S,
        keep_days=config.notify_keep_days,
    )
    relay.run(_stop_on_signal())
    return 0


def _run_jobs(config: Settings, name: str) -> int:
    policy = jobs.Policy(
        tries=config.notify_tries, timeout_s=config.notify_timeout_s, concurrency=config.notify_concurrency
    )
    pool = _pool(config, name)
    sender = jobs.ChannelSender(pool, _channel(config, name), policy=policy, throttle=_throttle(config, name))
    jobs.configure(sender)
    archive.configure(pool)
    ChannelWorker(sender, connect(config.queue_url, timeout_s=REDIS_TIMEOUT_S)).work(logging_level=None)
    return 0


def _channel(config: Settings, name: str) -> Channel:
    if name == WebhookChannel.name:
        return WebhookChannel(
            config.webhook_url,
            config.webhook_secrets,
            timeout_s=config.notify_timeout_s,
            private=config.webhook_private,
        )
    if name == EmailChannel.name:
        return EmailChannel(
            config.smtp_url,
            sender=config.email_from,
            recipient=config.email_to,
            time_zone=config.time_zone,
            timeout_s=config.notify_timeout_s,
        )
    return FileChannel(config.notify_dir, config.time_zone)


def _throttle(config: Settings, name: str) -> Throttle:
    rates = {EmailChannel.name: config.email_rate, WebhookChannel.name: config.webhook_rate}
    return Throttle(rates.get(name, FILE_RATE))


def _pool(config: Settings, name: str) -> Pool:
    # Asynchronous commit: what a crash of PostgreSQL undoes is sent again, with the same key. Commits
    # that wait for the disk would delay those of the issue statement (docs/decisions/0023).
    timeouts = Timeouts.within(DATABASE_DEADLINE_MS)
    return Pool(config.database_url, name=name, max_size=2, timeouts=timeouts, synchronous_commit=False)


def _stop_on_signal() -> StopSignal:
    return StopSignal(signal.SIGTERM, signal.SIGINT)


def _end_with_parent(parent: int) -> None:
    """Exit when the supervisor is gone: a child must not outlive one that was killed."""

    def watch() -> None:
        while os.getppid() == parent:
            threading.Event().wait(1.0)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()
