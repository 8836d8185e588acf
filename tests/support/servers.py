"""Real servers and real processes for the tests. All on loopback, all ended by pid."""

from __future__ import annotations

import http.client
import json
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from couponapp.local.postgres import EmbeddedPostgres
from loadtest.testbed.postgres import new_postgres
from loadtest.testbed.service import WebServer, base_environ, start_web, start_worker

ROOT = Path(__file__).resolve().parents[2]
JWT_SECRET = "test-secret-of-32-bytes-or-more-for-hs256"
SECRET_KEY = "test-session-key-of-32-bytes-or-more"
END_TIMEOUT_S = 10.0


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
    return {
        **base_environ(database_url, redis_url),
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


@dataclass(frozen=True)
class Web(WebServer):
    """A running web server, and a client of it."""

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """Its main process."""
        return self.child.process

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
    """Start gunicorn, wait until the probe says yes, and end it after the block; more in `start_web`."""
    full = {**environ, "WEB_CONCURRENCY": str(processes)}
    web = Web(**vars(start_web(directory, full, app, arguments, files=files, probe=probe)))
    try:
        yield web
    finally:
        web.child.end(END_TIMEOUT_S)


@contextmanager
def running_worker(directory: Path, environ: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Start the notification worker and end it after the block; its messages go to `directory/notifications`."""
    # Not behind everything else that the tests do at the same time.
    full = {**environ, "COUPON_NOTIFY_DIR": str(directory / "notifications")}
    worker = start_worker(directory, full, niceness=0)
    try:
        yield worker.process
    finally:
        worker.end(END_TIMEOUT_S)


def end(process: subprocess.Popen[bytes]) -> int:
    """Ask a process to end, and force it after ten seconds."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait(5)


@contextmanager
def own_postgres(directory: Path, *options: str) -> Iterator[EmbeddedPostgres]:
    """A server that a test may kill."""
    with new_postgres(directory / "postgres", *options).running(directory) as server:
        yield server
