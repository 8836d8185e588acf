"""The whole service on free ports and in a directory of its own, for a load, a fault or a benchmark."""

from __future__ import annotations

import http.client
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from couponapp.auth import tokens
from couponapp.config import settings
from couponapp.config.settings import Settings
from couponapp.local.postgres import EmbeddedPostgres, free_port
from couponapp.local.processes import Child
from couponapp.local.valkey import EmbeddedValkey
from couponapp.planning import coupons
from couponapp.storage import migrations
from couponapp.storage.pool import Pool, Timeouts

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 30.0
# Longer than the clock of a web process is ever wrong.
TOKEN_TTL_S = 4 * 3600
WEB_PROCESSES = 2


class Service:
    """PostgreSQL, Valkey, gunicorn and the worker, all ours and all on loopback."""

    def __init__(self, home: Path, stack: ExitStack, environ: Mapping[str, str]) -> None:
        """Start everything; the stack ends it.

        Args:
            home: where data, logs and messages go.
            stack: what ends it.
            environ: settings of the service, by name.
        """
        self.home = home
        self._stack = stack
        self.postgres = EmbeddedPostgres(home / "postgres", password="load", port=free_port())
        self.valkey = EmbeddedValkey(home / "valkey", password="load", port=free_port())
        self._children: list[Child] = []
        for server in (self.postgres, self.valkey):
            stack.callback(server.end)
            server.start(home)
            assert server.child is not None
            self._children.append(server.child)
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

    def start_web(
        self,
        app: str = "wsgi:app",
        arguments: Sequence[str] = (),
        *,
        port: int | None = None,
        files: int | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> int:
        """Start gunicorn with the project's settings; returns its port.

        Args:
            app: the application.
            arguments: more for gunicorn.
            port: a free one when left out.
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
        command = [*limited, sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", *arguments, app]
        self.web = self._start(name, command, full)
        give_up_s = time.monotonic() + START_TIMEOUT_S
        while not _answers(port):
            if time.monotonic() > give_up_s or self.web.process.poll() is not None:
                raise RuntimeError(f"gunicorn does not answer; see {self.home / name}.log")
            time.sleep(0.05)
        return port

    def web_log(self) -> str:
        """What the web server that was started last has said."""
        return self._web_log.read_text(encoding="utf-8", errors="replace")

    def start_worker(self) -> Child:
        """Start the notification worker; it goes after the web processes, as in `make run`."""
        command = ["nice", "-n", "10", sys.executable, "-m", "couponapp.worker"]
        return self._start("worker", command, self.environ)

    def processes(self) -> list[psutil.Process]:
        """Every process of the service that runs now."""
        found = []
        for child in self._children:
            with suppress(psutil.NoSuchProcess):
                parent = psutil.Process(child.process.pid)
                found += [parent, *parent.children(recursive=True)]
        return found

    def new_coupon(self, total: int, *, opens_in_s: float = -60.0) -> int:
        """A coupon; open now unless told otherwise."""
        return coupons.create(self.pool, name="부하 시험 쿠폰", total=total, opens_at=opens_in_s, closes_at=86_400.0)

    def token(self, user: str) -> str:
        """A token of a user."""
        return tokens.sign(self.config, user, ttl_s=TOKEN_TTL_S)

    def _start(self, name: str, command: list[str], environ: Mapping[str, str]) -> Child:
        with open(self.home / f"{name}.log", "ab") as log:
            child = Child(name, self.home, command, environ=environ, log=log, directory=ROOT)
        self._stack.callback(child.end)
        self._children.append(child)
        return child


@contextmanager
def running_service(**environ: str) -> Iterator[Service]:
    """Start a service in a temporary directory, and end and remove it afterwards.

    Args:
        environ: settings that differ from the defaults.
    """
    with TemporaryDirectory(prefix="couponapp-") as home, ExitStack() as stack:
        yield Service(Path(home), stack, environ)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/livez")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
