"""`make run` from a clean copy, as a new user has it: started, used, ended, started again, killed."""

from __future__ import annotations

import http.cookiejar
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from couponapp.local.postgres import free_port
from tests.support.postgres_proxy import relay_to
from tests.support.servers import ROOT, wait_until

FIRST_START_S = 300  # installs everything, perhaps with a cold cache
START_S = 30
END_S = 20


class MakeRun:
    """`make run` in a directory, with what it prints."""

    def __init__(self, directory: Path, environ: Mapping[str, str]) -> None:
        self.directory = directory
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            ["make", "run"],
            cwd=directory,
            env=dict(environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # a terminal of its own, as it were
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_until_ready(self, timeout_s: float) -> str:
        """The address that it prints once everything is up."""
        wait_until(
            lambda: "is ready" in self.output or self.process.poll() is not None, timeout_s=timeout_s, what=self.output
        )
        found = re.search(r"couponapp is ready: (http://\S+)", self.output)
        assert found, self.output
        wait_until(lambda: "Ctrl-C ends everything" in self.output, timeout_s=5, what="all is printed")
        return found[1]

    @property
    def supervisor(self) -> psutil.Process:
        return psutil.Process(int((self.directory / "var/run/lock").read_text()))

    def family(self) -> list[psutil.Process]:
        """Everything that the supervisor has started."""
        return list(self.supervisor.children(recursive=True))


@pytest.fixture(scope="module")
def clean_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a fresh clone holds: the files that git knows, and none that it ignores."""
    directory = tmp_path_factory.mktemp("clone") / "couponapp"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, directory / name)
    return directory


@pytest.fixture
def environ() -> dict[str, str]:
    """A person's shell that knows nothing of the service."""
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("COUPON_", "DATABASE_", "REDIS_", "PYTEST_"))}
    keep.pop("VIRTUAL_ENV", None)
    return {**keep, "PORT": str(free_port()), "PYTHON": sys.executable}


@pytest.fixture
def runs() -> Iterator[list[MakeRun]]:
    """Runs that are ended whatever happens."""
    started: list[MakeRun] = []
    yield started
    for run in started:
        if run.process.poll() is None:
            os.killpg(run.process.pid, signal.SIGTERM)
            run.process.wait(END_S)


class Browser:
    """Keeps cookies and follows redirects, like a person's."""

    def __init__(self, address: str) -> None:
        self._address = address
        jar = http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))

    def get(self, path: str) -> str:
        return str(self._opener.open(self._address + path, timeout=10).read().decode())

    def submit(self, page: str, path: str, **fields: str) -> str:
        """Post the form of a page, with its CSRF token."""
        found = re.search(r'name="csrf_token" value="([^"]+)"', page)
        assert found
        body = urllib.parse.urlencode({"csrf_token": found[1], **fields}).encode()
        return str(self._opener.open(self._address + path, data=body, timeout=10).read().decode())


def answers(browser: Browser, path: str) -> bool:
    try:
        return bool(browser.get(path))
    except urllib.error.HTTPError:
        return False


def run_curl(line: str) -> dict[str, object]:
    """What the printed curl line would do."""
    words = shlex.split(line)
    assert words[:3] == ["curl", "-X", "POST"]
    name, _, value = words[4].partition(": ")
    request = urllib.request.Request(words[5], method="POST", headers={name: value})
    return dict(json.loads(urllib.request.urlopen(request, timeout=10).read()))


def verify(directory: Path, environ: Mapping[str, str]) -> dict[str, int]:
    """`flask coupons verify` in another terminal, which finds the servers by itself."""
    result = subprocess.run(
        [directory / ".venv/bin/flask", "coupons", "verify", "--json"],
        cwd=directory, env=dict(environ), capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    report = json.loads(result.stdout)
    assert report["clean"]
    return dict(report["coupons"][0])


def all_gone(family: list[psutil.Process]) -> bool:
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in family)


@pytest.mark.timeout(600)
def test_a_clean_copy_is_started_used_ended_started_again_killed_and_started_again(
    clean_copy: Path, environ: dict[str, str], runs: list[MakeRun]
) -> None:
    # Started: from nothing to a printed address.
    first = MakeRun(clean_copy, environ)
    runs.append(first)
    address = first.wait_until_ready(FIRST_START_S)

    # Used: once by the printed curl line, once through the pages.
    curl = re.search(r"curl .*", first.output)
    assert curl
    assert run_curl(curl[0])["code"] == "ISSUED"
    browser = Browser(address)
    login = browser.get("/login?next=/coupons/1")
    coupon = browser.submit(login, "/login", user="김철수", next="/coupons/1")
    mine = browser.submit(coupon, "/coupons/1/issue")
    code = re.search(r"<code>([2-9A-Z-]{24})</code>", mine)
    assert code
    messages = clean_copy / "var/notifications"
    assert str(messages) in first.output
    wait_until(lambda: verify(clean_copy, environ)["notified"] == 2, timeout_s=20, what="both are notified")
    assert any(code[1] in path.read_text() for path in messages.glob("*.txt"))

    # Ended by TERM: cleanly, children included.
    family = first.family()
    assert len(family) >= 6  # PostgreSQL, Valkey, gunicorn and its processes, the worker and its parts
    supervisor = first.supervisor
    for _ in range(3):  # make passes its own on, so more than one may come
        supervisor.send_signal(signal.SIGTERM)
    assert first.process.wait(END_S) == 0
    assert all_gone(family)

    # Started again: the data is there.
    second = MakeRun(clean_copy, environ)
    runs.append(second)
    second.wait_until_ready(START_S)
    assert verify(clean_copy, environ)["issued"] == 2

    # A server that dies is replaced, with its data.
    (postgres,) = [one for one in second.supervisor.children() if "postgres" in one.name()]
    postgres.kill()
    wait_until(lambda: "postgres ended with -9; starting it again" in second.output, timeout_s=20, what="replaced")
    browser = Browser(second.wait_until_ready(START_S))
    wait_until(lambda: answers(browser, "/readyz"), timeout_s=20, what="the web answers again")
    assert verify(clean_copy, environ)["issued"] == 2

    # A second one in the same place, and one on the same port, are told so.
    refused = subprocess.run(
        ["make", "run"], cwd=clean_copy, env=environ, capture_output=True, text=True, timeout=START_S, check=False
    )
    assert "is already running here" in refused.stderr

    # Killed: what is orphaned is found, ended, and no row is lost.
    family = second.family()
    second.supervisor.kill()
    second.process.wait(END_S)
    assert not all_gone(family)
    third = MakeRun(clean_copy, environ)
    runs.append(third)
    third.wait_until_ready(START_S)
    assert "ended what an earlier run left behind" in third.output
    assert all_gone(family)
    assert verify(clean_copy, environ)["issued"] == 2

    # Ended by Ctrl-C, which a terminal sends to make and the supervisor alike.
    family = third.family()
    supervisor = third.supervisor
    os.killpg(third.process.pid, signal.SIGINT)
    third.process.wait(END_S)
    assert all_gone([supervisor, *family])
    assert not (clean_copy / "var/local.env").exists()


def start_supervisor(directory: Path, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """The supervisor itself, because make turns every exit code into its own."""
    return subprocess.run(
        [sys.executable, "-m", "couponapp.local.run"],
        cwd=directory,
        env={**environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def one_line(result: subprocess.CompletedProcess[str]) -> str:
    """What a failed start says on standard error: one line, and exit code 1."""
    assert result.returncode == 1, result.stdout + result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    return lines[0]


def test_a_busy_port_is_one_clear_line(tmp_path: Path, environ: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", int(environ["PORT"]))):
        said = one_line(start_supervisor(tmp_path, environ))
    assert f"PORT {environ['PORT']}" in said
    assert "in use" in said


def test_an_unreachable_database_is_one_clear_line(tmp_path: Path, environ: dict[str, str], redis_url: str) -> None:
    nobody = f"postgresql://nobody:secret-word@127.0.0.1:{free_port()}/none"
    said = one_line(start_supervisor(tmp_path, {**environ, "DATABASE_URL": nobody, "REDIS_URL": redis_url}))
    assert "DATABASE_URL: cannot be reached" in said
    assert "secret-word" not in said


def test_an_outdated_server_is_one_clear_line(
    tmp_path: Path, environ: dict[str, str], database_url: str, redis_url: str
) -> None:
    with relay_to(database_url) as relay:
        relay.server_version = b"13.22"
        old = relay.url
        said = one_line(start_supervisor(tmp_path, {**environ, "DATABASE_URL": old, "REDIS_URL": redis_url}))
    assert "PostgreSQL 13; 15 or newer is needed" in said


def test_an_unreachable_redis_is_one_clear_line(tmp_path: Path, environ: dict[str, str], database_url: str) -> None:
    nobody = f"redis://127.0.0.1:{free_port()}/0"
    said = one_line(start_supervisor(tmp_path, {**environ, "DATABASE_URL": database_url, "REDIS_URL": nobody}))
    assert "REDIS_URL: cannot be reached" in said


@pytest.mark.parametrize("name", ["COUPON_NOTIFY_DIR", "COUPON_METRICS_DIR"])
def test_a_directory_that_cannot_be_used_is_one_clear_line(tmp_path: Path, environ: dict[str, str], name: str) -> None:
    said = one_line(start_supervisor(tmp_path, {**environ, name: "/dev/null/nope"}))
    assert name in said


def test_a_key_set_that_cannot_be_used_is_one_clear_line(tmp_path: Path, environ: dict[str, str]) -> None:
    said = one_line(start_supervisor(tmp_path, {**environ, "COUPON_JWT_JWKS": "/nope.json"}))
    assert "COUPON_JWT_JWKS" in said


def test_a_bad_setting_is_one_clear_line_that_names_it(tmp_path: Path, environ: dict[str, str]) -> None:
    said = one_line(start_supervisor(tmp_path, {**environ, "COUPON_LIMIT_USER": "many"}))
    assert "COUPON_LIMIT_USER" in said
