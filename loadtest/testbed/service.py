"""The whole service on free ports and in a directory of its own, for a load run, a fault run or a benchmark."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from couponapp.auth import tokens
from couponapp.config import settings
from couponapp.config.settings import Settings
from couponapp.local.postgres import EmbeddedPostgres, free_port
from couponapp.local.processes import Child
from couponapp.local.valkey import EmbeddedValkey
from couponapp.planning import coupons
from couponapp.storage import migrations
from couponapp.storage.pool import Pool, Timeouts
from loadtest.driver.http_client import HttpConnection, request_bytes
from loadtest.testbed.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 30.0
# Longer than the clock of a web process is ever wrong.
TOKEN_TTL_S = 4 * 3600
WEB_PROCESSES = 2


class Service:
    """PostgreSQL, Valkey, gunicorn and the worker, all on loopback.

    Attributes:
        home: directory of data, logs and messages.
        environ: environment of its processes.
        config: its settings.
        pool: a connection to its database.
        web: the web server that was started last.
    """

    def __init__(self, home: Path, stack: ExitStack, environ: Mapping[str, str]) -> None:
        """Start the servers; the web server and the worker have functions of their own.

        Args:
            home: directory for data, logs and messages.
            stack: stops everything when it is closed.
            environ: settings of the service, by name.
        """
        self.home = home
        self._stack = stack
        self.postgres = EmbeddedPostgres(home / "postgres", password="load", port=free_port())
        self.valkey = EmbeddedValkey(home / "valkey", password="load", port=free_port())
        for server in (self.postgres, self.valkey):
            stack.callback(server.end)
            server.start(home)
        migrations.migrate(self.postgres.url)
        self.environ = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ},
            "PYTHONPATH": str(ROOT),
            "WEB_CONCURRENCY": str(WEB_PROCESSES),
            "DATABASE_URL": self.postgres.url,
            "REDIS_URL": self.valkey.url,
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
        """Start gunicorn with the project's settings; return its port.

        Args:
            app: WSGI application.
            port: a free one when None.
            files: how many files and connections each of its processes may have open.
            environ: settings that differ from the service's.

        Raises:
            RuntimeError: it does not answer; says where the log is.
        """
        port = port or free_port()
        name = f"web-{port}"
        self._web_log = self.home / f"{name}.log"
        metrics_dir = str(self.home / f"metrics-{port}")
        full = {**self.environ, "PORT": str(port), "COUPON_METRICS_DIR": metrics_dir, **(environ or {})}
        limited = ["sh", "-c", 'ulimit -n "$0" && exec "$@"', str(files)] if files else []
        command = [*limited, sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", app]
        self.web = self._start(name, command, full)
        otherwise = f"gunicorn does not answer; see {self._web_log}"
        wait_until(lambda: _answers(port), otherwise, timeout_s=START_TIMEOUT_S, child=self.web)
        return port

    def web_log(self) -> str:
        """Return the log of the web server that was started last."""
        return self._web_log.read_text(encoding="utf-8", errors="replace")

    def start_worker(self) -> Child:
        """Start the notification worker, at a lower priority than the web processes, as in `make run`."""
        command = ["nice", "-n", "10", sys.executable, "-m", "couponapp.worker"]
        return self._start("worker", command, self.environ)

    def new_coupon(self, total: int, *, opens_in_s: float = -60.0) -> int:
        """Create a coupon, which is open unless told otherwise; return its id."""
        return coupons.create(self.pool, name="부하 시험 쿠폰", total=total, opens_at=opens_in_s, closes_at=86_400.0)

    def token(self, user: str) -> str:
        """Return a token for a user."""
        return tokens.sign(self.config, user, ttl_s=TOKEN_TTL_S)

    def _start(self, name: str, command: list[str], environ: Mapping[str, str]) -> Child:
        with open(self.home / f"{name}.log", "ab") as log:
            child = Child(name, self.home, command, environ=environ, log=log, directory=ROOT)
        self._stack.callback(child.end)
        return child


@contextmanager
def running_service(**environ: str) -> Iterator[Service]:
    """Start a service in a temporary directory; stop and remove it when the block ends.

    Args:
        environ: settings that differ from the defaults.
    """
    with TemporaryDirectory(prefix="couponapp-") as home, ExitStack() as stack:
        yield Service(Path(home), stack, environ)


def _answers(port: int) -> bool:
    connection = HttpConnection(port, timeout_s=2)
    status = connection.exchange(request_bytes("GET", "/livez")).status
    connection.close()
    return status == 200
