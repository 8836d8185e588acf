"""The web server's settings, each with its reason."""

import contextlib
import gc
import os
import sys
import threading
import time
from collections.abc import Iterable
from typing import Any

from couponapp.config import settings
from couponapp.errors import ConfigurationError
from couponapp.server import open_files

# Clients of one moment, most of which wait or are waited for. Each costs some 10 KB and an open file.
_CONNECTIONS = 2000
# Besides the pools: Redis, metrics, logs, the event loop.
_OTHER_FILES = 100

try:
    _settings = settings.load()
    _settings.require_for_web()
    settings.make_directory(_settings, "metrics_dir")
    _files = _OTHER_FILES + _settings.pool_issue + _settings.pool_read
    worker_connections = open_files.connections(_CONNECTIONS, others=_files)
except ConfigurationError as error:
    # One line instead of gunicorn's traceback.
    print(f"couponapp: {error}", file=sys.stderr)
    sys.exit(1)

wsgi_app = "wsgi:app"
bind = f"{_settings.host}:{_settings.port}"
workers = _settings.web_processes

# An idle or slow client costs a greenlet, not one of a few threads, and psycopg waits
# cooperatively (docs/decisions/0006).
worker_class = "couponapp.server.gevent_worker.Worker"
# The kernel caps it at net.core.somaxconn: the queue of a crowd that arrives in one second.
backlog = 4096

# A request is answered within its deadline; a process whose loop has stalled for much longer is
# broken and replaced.
timeout = 30
graceful_timeout = 10
# How long a connection may lie idle. Longer than the idle time-out of usual load balancers' probes,
# short enough for TERM.
keepalive = 5

# Refuse early what no client of ours sends.
limit_request_line = 4094
limit_request_fields = 64
limit_request_field_size = 8190

# X-Forwarded-* is the application's business (COUPON_TRUSTED_PROXIES): gunicorn itself would
# believe it from every process on this machine.
forwarded_allow_ips = ""
# Over a Unix socket it would still believe these, whoever has sent them.
forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}
# Two instances on one machine would share one control socket.
control_socket_disable = True

accesslog = None
errorlog = "-"
loglevel = _settings.log_level

_RECORD_EVERY_S = 2.0


def on_starting(server: Any) -> None:
    """Counters of processes that are gone must not count again."""
    for left_over in _settings.metrics_dir.glob("*.db"):
        left_over.unlink()


# Before the first import of prometheus_client, which decides at import whether it shares.
os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(_settings.metrics_dir.resolve())


_WARM_UP_S = 3.0


def _warm_up(pools: Iterable[Any]) -> None:
    """Let all pools connect at the same time; where PostgreSQL is away, serve without it after a while."""
    for pool in pools:
        pool.warm_up(0)
    give_up_s = time.monotonic() + _WARM_UP_S
    for pool in pools:
        pool.warm_up(give_up_s - time.monotonic())


def post_worker_init(worker: Any) -> None:
    """After the fork: connect before the first request does, know what operators have decided, record the gauges.

    The gauges regularly, because a scrape is answered by one process only.
    """
    worker.client_timeout_s = _settings.client_timeout_s
    # What has been loaded stays: the collector need not look through it again and again while
    # requests wait.
    gc.collect()
    gc.freeze()

    from couponapp.server.gevent_worker import Worker
    from couponapp.web.parts import EXTENSION
    from couponapp.web.probes import record_gauges

    parts = worker.wsgi.extensions[EXTENSION]
    if parts is None:  # not ours: a baseline of the benchmark
        return
    if isinstance(worker, Worker):  # another worker class has no rounds, or does not tell of them
        worker.tell_rounds(parts.backlog)
    _warm_up(parts.pools)
    parts.switches.refresh()
    watch = parts.switches.watch
    threading.Thread(target=watch, args=(lambda: worker.alive,), name="switches", daemon=True).start()

    def record() -> None:
        while worker.alive:
            record_gauges(parts)
            threading.Event().wait(_RECORD_EVERY_S)

    threading.Thread(target=record, name="record-gauges", daemon=True).start()


def worker_exit(server: Any, worker: Any) -> None:
    """Close the pools, so that PostgreSQL need not find out by itself."""
    from couponapp.web.parts import EXTENSION

    with contextlib.suppress(Exception):
        for pool in worker.wsgi.extensions[EXTENSION].pools:
            pool.close()


def child_exit(server: Any, worker: Any) -> None:
    """Also after kill -9: drop the gauges of a process that is gone."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]  # brings no types
