"""The load and fault runs themselves: a short one passes, and a broken promise is told."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from loadtest import faults, load
from loadtest.client import request_bytes
from loadtest.generator import Arrival, Result, closed_loop, open_loop
from loadtest.service import Service, running_service
from tests.servers import ROOT


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running_service() as service:
        yield service


def test_a_short_load_keeps_every_promise() -> None:
    command = [
        sys.executable,
        "-m",
        "loadtest.load",
        "--rate",
        "40",
        "--seconds",
        "5",
        "--stock",
        "50",
        "--users",
        "90",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every promise was kept" in done.stdout
    assert "p99 ms" in done.stdout


def test_a_fault_is_run_and_told() -> None:
    # Whether this machine kept the bounds in time is for `make faults` to say, not for a test.
    command = [sys.executable, "-m", "loadtest.faults", "--only", "Redis killed"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert "no 5xx, issuing goes on" in done.stdout, done.stdout + done.stderr
    assert "ISSUED, slowest" in done.stdout


def result(code: str, status: int, *, at_s: float = 0.0, latency_s: float = 0.01) -> Result:
    return Result(at_s, "issue", latency_s, status, code)


def test_the_load_run_tells_each_broken_promise(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "NOTIFY_TIMEOUT_S", 0.0)
    coupon_id = service.new_coupon(1)
    told = load.judge(service, coupon_id, [result("ISSUED", 201), result("INTERNAL_ERROR", 500)], stock=1)
    assert any("5xx" in line for line in told)
    assert any("told ISSUED" in line for line in told)
    assert load.judge(service, coupon_id, [result("SOLD_OUT", 409)], stock=1) != []
    assert load.judge(service, coupon_id, [], stock=1) == []


def test_the_fault_suite_tells_each_broken_promise(service: Service) -> None:
    fault = faults.FAULTS[2]
    during, after = faults.FAULT_AT_S + 1, faults.RECOVERED_AT_S + 1
    service.new_coupon(1)
    assert faults.judge(fault, service, [result("SERVICE_UNAVAILABLE", 503, at_s=during)]) == []
    for wrong in (
        result("SERVICE_UNAVAILABLE", 503, at_s=after),
        result("INTERNAL_ERROR", 500, at_s=during),
        result("SERVICE_UNAVAILABLE", 503, at_s=during, latency_s=2.0),
    ):
        assert faults.judge(fault, service, [wrong]) != [], wrong


class Stalling(BaseHTTPRequestHandler):
    """Answers nothing until it is let go."""

    protocol_version = "HTTP/1.1"
    go = threading.Event()

    def do_GET(self) -> None:
        assert self.go.wait(20)
        body = b'{"code": "OK"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def stalling() -> Iterator[int]:
    Stalling.go.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stalling)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def test_a_stall_is_in_the_latency_of_every_request_that_was_planned_meanwhile(stalling: int) -> None:
    # With one connection the second request leaves late; its latency counts from its planned time.
    threading.Timer(1.0, Stalling.go.set).start()
    plan = [Arrival(at_s, "get", request_bytes("GET", "/")) for at_s in (0.0, 0.1, 0.2)]
    latencies_s = [one.latency_s for one in open_loop(stalling, plan, clients=1)]
    assert all(latency_s >= 0.75 for latency_s in latencies_s)
    assert latencies_s == sorted(latencies_s, reverse=True)


def test_the_closed_loop_counts_what_was_answered(stalling: int) -> None:
    Stalling.go.set()
    rate, statuses = closed_loop(stalling, [request_bytes("GET", "/")], clients=2, seconds=0.3)
    assert rate > 0
    assert statuses == {200}
