"""Real servers and real processes for the tests. All on loopback, all ended by pid."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg

from couponapp.local.postgres import EmbeddedPostgres, free_port

ROOT = Path(__file__).resolve().parents[2]
JWT_SECRET = "test-secret-of-32-bytes-or-more-for-hs256"
SECRET_KEY = "test-session-key-of-32-bytes-or-more"
START_TIMEOUT_S = 30.0
_numbers = itertools.count(1)


def wait_until(condition: Any, *, timeout_s: float, what: str) -> Any:
    """Ask again and again until the answer is true; fail after a bound."""
    give_up_s = time.monotonic() + timeout_s
    while time.monotonic() < give_up_s:
        if result := condition():
            return result
        time.sleep(0.02)
    raise AssertionError(f"after {timeout_s} s still not: {what}")


def service_environ(database_url: str, redis_url: str, **more: str) -> dict[str, str]:
    """The environment of a service under test: nothing of the person's own settings gets in."""
    keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return {
        **keep,
        "PYTHONPATH": str(ROOT),
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "COUPON_JWT_SECRET": JWT_SECRET,
        "COUPON_SECRET_KEY": SECRET_KEY,
        "COUPON_DEMO_LOGIN": "1",
        "COUPON_COOKIE_SECURE": "0",
        "COUPON_LIMIT_USER": "1000/minute",
        "COUPON_LIMIT_MY_COUPONS": "100000/minute",
        **more,
    }


@dataclass(frozen=True)
class Answer:
    """One HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["code"])


@dataclass
class Web:
    """A running web server."""

    port: int
    process: subprocess.Popen[bytes]
    environ: Mapping[str, str]
    log: Path

    def request(
        self, method: str, path: str, *, token: str = "", headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Answer:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            return send(connection, method, path, token=token, headers=headers, body=body)
        finally:
            connection.close()


def send(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    *,
    token: str = "",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
) -> Answer:
    """One request on an open connection."""
    all_headers = {**({"Authorization": f"Bearer {token}"} if token else {}), **(headers or {})}
    connection.request(method, path, body=body or None, headers=all_headers)
    response = connection.getresponse()
    return Answer(response.status, dict(response.getheaders()), response.read())


@contextmanager
def running_web(
    directory: Path,
    environ: Mapping[str, str],
    *,
    processes: int = 2,
    arguments: Sequence[str] = (),
    app: str = "wsgi:app",
    probe: str = "/readyz",
    files: int | None = None,
) -> Iterator[Web]:
    """Start gunicorn with the project's own settings and these arguments, wait until the probe says yes, end it.

    `files` is how many files and connections each of its processes may have open.
    """
    port = free_port()
    number = next(_numbers)
    log = directory / f"web-{number}.log"
    full = {
        **environ,
        "PORT": str(port),
        "WEB_CONCURRENCY": str(processes),
        "COUPON_METRICS_DIR": str(directory / f"metrics-{number}"),
    }
    limited = ["sh", "-c", 'ulimit -n "$0" && exec "$@"', str(files)] if files else []
    command = [*limited, sys.executable, "-m", "gunicorn", *arguments, app]
    with open(log, "wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=full, stdout=output, stderr=output)
    web = Web(port, process, full, log)
    try:
        wait_until(
            lambda: process.poll() is not None or _says_yes(web, probe), timeout_s=START_TIMEOUT_S, what=f"{probe}: yes"
        )
        assert process.poll() is None, log.read_text()
        yield web
    finally:
        end(process)


def _says_yes(web: Web, probe: str) -> bool:
    try:
        return web.request("GET", probe).status == 200
    except OSError:
        return False


@contextmanager
def running_worker(directory: Path, environ: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Start the notification worker; its messages go to `directory/notifications`."""
    log = directory / f"worker-{next(_numbers)}.log"
    full = {**environ, "COUPON_NOTIFY_DIR": str(directory / "notifications")}
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "couponapp.worker"], cwd=ROOT, env=full, stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> int:
    """Ask a process to end, and force it after ten seconds."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait(5)


@contextmanager
def fresh_database(server_url: str, *, template: str = "template0") -> Iterator[str]:
    """A database of its own on a server, dropped afterwards; yields its URL."""
    name = f"couponapp_test_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'.encode())
    try:
        yield with_database(server_url, name)
    finally:
        with psycopg.connect(server_url, autocommit=True) as admin:
            admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


def with_database(url: str, name: str) -> str:
    """The same server, another database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


@contextmanager
def own_postgres(directory: Path, *options: str) -> Iterator[EmbeddedPostgres]:
    """A server that a test may kill."""
    directory.mkdir(parents=True, exist_ok=True)
    server = EmbeddedPostgres(directory / "postgres", password="test", port=free_port(), options=options)
    server.start(directory)
    try:
        yield server
    finally:
        server.end()
