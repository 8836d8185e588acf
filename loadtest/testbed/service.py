"""The service on free ports and in a directory of its own, for a load, a fault, a benchmark or a test."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from couponapp.auth import tokens
from couponapp.config import settings
from couponapp.config.settings import Settings
from couponapp.local.postgres import free_port
from couponapp.local.processes import Child
from couponapp.local.valkey import EmbeddedValkey
from couponapp.planning import coupons
from couponapp.storage import migrations
from couponapp.storage.pool import Pool, Timeouts
from loadtest.driver.http_client import get
from loadtest.testbed.postgres import new_postgres
from loadtest.testbed.processes import family
from loadtest.testbed.waiting import wait_until_ready

ROOT = Path(__file__).resolve().parents[2]
# What may get into the service from the environment of whoever starts it.
KEPT = ("PATH", "HOME", "LANG", "TMPDIR")
# Longer than the clock of a web process is ever wrong.
TOKEN_TTL_S = 4 * 3600
WEB_PROCESSES = 2


@dataclass(frozen=True)
class WebServer:
    """A running gunicorn.

    Attributes:
        port: on loopback.
        child: its main process.
        environ: its whole environment.
        log: what it and its processes write.
    """

    port: int
    child: Child
    environ: Mapping[str, str]
    log: Path

    def said(self) -> str:
        """Return what it has logged so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")


def base_environ(database_url: str, redis_url: str) -> dict[str, str]:
    """Return what every process of the service needs, and none of the settings of whoever starts it."""
    return {
        **{name: os.environ[name] for name in KEPT if name in os.environ},
        "PYTHONPATH": str(ROOT),
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
    }


def start_web(
    home: Path,
    environ: Mapping[str, str],
    app: str = "wsgi:app",
    arguments: Sequence[str] = (),
    *,
    port: int | None = None,
    files: int | None = None,
    probe: str = "/livez",
) -> WebServer:
    """Start gunicorn with the project's settings and wait until its probe answers 200.

    Args:
        home: where its log, its pid file and its metrics go.
        environ: its whole environment; `WEB_CONCURRENCY` is how many processes it has.
        app: the application.
        arguments: more for gunicorn.
        port: a free one when left out.
        files: how many files and connections each of its processes may have open.
        probe: the path of the probe.

    Raises:
        RuntimeError: it ends, or the probe does not answer 200 in time; the message has the log.
    """
    port = port or free_port()
    name = f"web-{port}"
    full = {**environ, "PORT": str(port), "COUPON_METRICS_DIR": str(home / f"metrics-{port}")}
    limited = ["sh", "-c", 'ulimit -n "$0" && exec "$@"', str(files)] if files else []
    command = [*limited, sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", *arguments, app]
    web = WebServer(port, _start(home, name, command, full), full, home / f"{name}.log")

    def answers() -> bool:
        return get(port, probe, timeout_s=2.0).status == 200

    wait_until_ready(web.child, answers, f"gunicorn does not answer {probe}", log=web.log)
    return web


def start_worker(home: Path, environ: Mapping[str, str], *, niceness: int = 10) -> Child:
    """Start the notification worker.

    Args:
        home: where its log and its pid file go.
        environ: its whole environment.
        niceness: how far it stands back behind the web processes; as in `make run` when left out.
    """
    command = ["nice", "-n", str(niceness), sys.executable, "-m", "couponapp.worker"]
    return _start(home, "worker", command, environ)


class Service:
    """PostgreSQL, Valkey, gunicorn and the worker, all ours and all on loopback."""

    def __init__(self, home: Path, stack: ExitStack, environ: Mapping[str, str]) -> None:
        """Start PostgreSQL and Valkey; the stack ends them.

        Args:
            home: where data, logs and messages go.
            stack: what ends it.
            environ: settings of the service, by name.
        """
        self.home = home
        self._stack = stack
        self.postgres = new_postgres(home / "postgres")
        self.valkey = EmbeddedValkey(home / "valkey", password="load", port=free_port())
        for server in (self.postgres, self.valkey):
            stack.callback(server.end)
            server.start(home)
        migrations.migrate(self.postgres.url)
        self.environ = {
            **base_environ(self.postgres.url, self.valkey.url),
            "WEB_CONCURRENCY": str(WEB_PROCESSES),
            "COUPON_JWT_SECRET": "load-secret-of-32-bytes-or-more-for-hs256",
            "COUPON_SECRET_KEY": "load-session-key-of-32-bytes-or-more",
            "COUPON_NOTIFY_DIR": str(home / "notifications"),
            "COUPON_LOG_LEVEL": "warning",
            **environ,
        }
        self.config: Settings = settings.load(self.environ)
        self.pool = Pool(self.postgres.url, name="load", max_size=1, timeouts=Timeouts.within(20_000))
        stack.callback(self.pool.close)

    def start_postgres(self) -> None:
        """Start PostgreSQL again on its data."""
        self.postgres.start(self.home)

    def start_valkey(self) -> None:
        """Start Valkey again, empty."""
        self.valkey.start(self.home)

    def start_web(
        self,
        app: str = "wsgi:app",
        *,
        port: int | None = None,
        files: int | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> int:
        """Start a web server of this service and return its port; arguments and errors as of `start_web`.

        Args:
            app: the application.
            port: a free one when left out.
            files: how many files and connections each of its processes may have open.
            environ: settings that differ from the service's.
        """
        self.web = start_web(self.home, {**self.environ, **(environ or {})}, app, port=port, files=files)
        self._keep(self.web.child)
        return self.web.port

    def start_worker(self) -> Child:
        """Start the notification worker."""
        return self._keep(start_worker(self.home, self.environ))

    def processes(self) -> dict[str, Callable[[], Iterator[psutil.Process]]]:
        """Return the processes of the web server that was started last, of PostgreSQL and of Valkey, by role."""
        return {
            "web": partial(family, self.web.child),
            "postgres": lambda: family(self.postgres.child),
            "redis": lambda: family(self.valkey.child),
        }

    def new_coupon(self, total: int, *, opens_in_s: float = -60.0) -> int:
        """Create a coupon and return its id; it is open now unless another time is given."""
        return new_coupon(self.pool, total, opens_in_s)

    def token(self, user: str) -> str:
        """Sign a token for a user."""
        return tokens.sign(self.config, user, ttl_s=TOKEN_TTL_S)

    def _keep(self, child: Child) -> Child:
        self._stack.callback(child.end)
        return child


def new_coupon(pool: Pool, total: int, opens_in_s: float = -60.0) -> int:
    """Create a coupon in this database and return its id; it is open now unless another time is given."""
    return coupons.create(pool, name="부하 시험 쿠폰", total=total, opens_at=opens_in_s, closes_at=86_400.0)


@contextmanager
def running_service(**environ: str) -> Iterator[Service]:
    """Start a service in a temporary directory, and end and remove it afterwards.

    Args:
        environ: settings that differ from the defaults.
    """
    with TemporaryDirectory(prefix="couponapp-") as home, ExitStack() as stack:
        yield Service(Path(home), stack, environ)


def _start(home: Path, name: str, command: list[str], environ: Mapping[str, str]) -> Child:
    with open(home / f"{name}.log", "ab") as log:
        return Child(name, home, command, environ=environ, log=log, directory=ROOT)
