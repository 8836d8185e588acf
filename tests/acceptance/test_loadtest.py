"""The tools of load and fault runs: a short run passes, and a broken promise is reported."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from couponapp.issuing.statement import issue
from loadtest.driver.generator import Arrival, closed_loop, open_loop
from loadtest.driver.http_client import HttpConnection, _was_closed, request_bytes
from loadtest.faults import judge
from loadtest.testbed.service import Service, running_service
from loadtest.testbed.tcp_proxy import TcpProxy
from tests.support.servers import ROOT, wait_until


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running_service() as service:
        yield service


def test_a_fault_is_run_and_reported() -> None:
    # Whether this machine kept the bounds in time is for `make faults` to say, not for a test.
    command = [sys.executable, "-m", "loadtest.faults", "--only", "Redis flushed"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert "no effect" in done.stdout, done.stdout + done.stderr
    assert "ISSUED, slowest" in done.stdout


def test_the_judge_of_faults_looks_for_the_issuance_of_every_user_who_got_issued(service: Service) -> None:
    coupon_id = service.new_coupon(1)
    issuance = issue(service.pool, coupon_id, "kim").issuance
    assert issuance is not None
    kim = ("kim", issuance.code)
    assert judge.broken_records(service.postgres.url, {kim}) == []
    missing = judge.broken_records(service.postgres.url, {kim, ("lee", "A-B")})
    assert missing == ["1 got ISSUED and are not recorded"]
    another = judge.broken_records(service.postgres.url, {kim, ("kim", "A-B")})
    assert another == ["1 got another code than is recorded"]
    service.pool.execute("UPDATE coupon_stock SET remaining = 1 WHERE coupon_id = %s", [coupon_id])
    assert judge.broken_records(service.postgres.url, {kim}) != []
    service.pool.execute("UPDATE coupon_stock SET remaining = 0 WHERE coupon_id = %s", [coupon_id])


class Stalling(BaseHTTPRequestHandler):
    """Answers nothing until `go` is set."""

    protocol_version = "HTTP/1.1"
    go = threading.Event()

    def do_GET(self) -> None:
        assert self.go.wait(20)
        body = b'{"code": "OK"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Retry-After", "7")
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


def test_a_stall_counts_in_the_latency_of_every_request_that_was_planned_meanwhile(stalling: int) -> None:
    # With one connection the second request leaves late; its latency counts from its planned time.
    threading.Timer(1.0, Stalling.go.set).start()
    plan = [Arrival(at_s, "get", request_bytes("GET", "/")) for at_s in (0.0, 0.1, 0.2)]
    latencies_s = [one.latency_s for one in open_loop(stalling, plan, clients=1)]
    assert all(latency_s >= 0.75 for latency_s in latencies_s)
    assert latencies_s == sorted(latencies_s, reverse=True)


def test_the_closed_loop_counts_the_responses(stalling: int) -> None:
    Stalling.go.set()
    rate, _, statuses = closed_loop(stalling, [request_bytes("GET", "/")], clients=2, seconds=0.3)
    assert rate > 0
    assert statuses == {200}


def test_a_kept_connection_that_the_server_has_closed_is_reopened_and_no_response_is_lost(stalling: int) -> None:
    Stalling.go.set()
    connection = HttpConnection(stalling)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection._socket = socket.create_connection(listener.getsockname())
        listener.accept()[0].close()
        wait_until(lambda: _was_closed(connection._socket), timeout_s=10, what="the client can know of it")
        reply = connection.exchange(request_bytes("GET", "/"))
    assert (reply.status, reply.retry_after_s) == (200, 7)
    connection.close()


def test_a_proxy_forwards_and_delays_responses(stalling: int) -> None:
    Stalling.go.set()
    with closing(TcpProxy(f"http://127.0.0.1:{stalling}")) as relay:
        connection = HttpConnection(relay.port)
        assert connection.exchange(request_bytes("GET", "/")).status == 200
        relay.delay_s = 0.5
        began_s = time.monotonic()
        assert connection.exchange(request_bytes("GET", "/")).status == 200
        assert time.monotonic() - began_s >= 0.5
        connection.close()
    assert HttpConnection(relay.port).exchange(request_bytes("GET", "/")).status == 0
