"""The web server's settings, each with its reason."""

import gc
import os
import sys
from typing import Any

from couponapp.config import settings
from couponapp.errors import ConfigurationError
from couponapp.server import open_files

# Connections at one moment, most of them idle. Each costs some 10 KB and an open file.
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


def on_starting(server: Any) -> None:
    """Remove the counters of processes that are gone: they must not count again."""
    for left_over in _settings.metrics_dir.glob("*.db"):
        left_over.unlink()


# Before the first import of prometheus_client, which decides at import whether it shares.
os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(_settings.metrics_dir.resolve())

# How long a new process waits for full pools before it serves without them.
_WARM_UP_S = 3.0


def post_worker_init(worker: Any) -> None:
    """After the fork: connect before the first request does, and start the process's threads."""
    worker.client_timeout_s = _settings.client_timeout_s
    # What has been loaded stays: the collector need not look through it again and again while
    # requests wait.
    gc.collect()
    gc.freeze()

    from couponapp.server.gevent_worker import Worker

    if (services := _services(worker)) is None:
        return
    if isinstance(worker, Worker):  # another worker class has no rounds, or does not tell of them
        worker.report_rounds(services.overload)
    services.start(wait_s=_WARM_UP_S)


def worker_exit(server: Any, worker: Any) -> None:
    """End the process's threads and close its pools."""
    if (services := _services(worker)) is not None:
        services.close()


def _services(worker: Any) -> Any:
    """Return the application's services; None for a baseline of the benchmark, which has none."""
    from couponapp.web.current import EXTENSION

    return getattr(getattr(worker, "wsgi", None), "extensions", {}).get(EXTENSION)


def child_exit(server: Any, worker: Any) -> None:
    """Also after kill -9: drop the gauges of a process that is gone."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]  # brings no types
