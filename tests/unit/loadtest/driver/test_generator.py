"""The generator reports the delays of servers whose delays are known, also when the server stalls."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import pytest

from loadtest.driver import generator
from loadtest.driver.generator import GAVE_UP, NOT_SENT, Arrival, Result, open_loop
from loadtest.driver.http_client import request_bytes

GET = request_bytes("GET", "/")
BODY = b'{"code": "OK", "data": {"code": "ABCD"}}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nRetry-After: 7\r\n\r\n%b" % (len(BODY), BODY)


class DelayingServer:
    """Answers every request after a delay, and measures how long that really took."""

    def __init__(self, delay_s: float, answer: bytes = ANSWER) -> None:
        self.delay_s = delay_s
        self.answer = answer
        self.delays_s: list[float] = []
        self.connections = 0
        self.awake = threading.Event()
        self.awake.set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.awake.set()
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts, which close() does not
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with client:
            while client.recv(65_536):
                began_s = time.perf_counter()
                time.sleep(self.delay_s)
                self.awake.wait(30)
                # Before the answer leaves: the client may be done before this thread goes on.
                self.delays_s.append(time.perf_counter() - began_s)
                try:
                    client.sendall(self.answer)
                except OSError:
                    return


@contextmanager
def delaying(delay_s: float, answer: bytes = ANSWER) -> Iterator[DelayingServer]:
    server = DelayingServer(delay_s, answer)
    try:
        yield server
    finally:
        server.close()


def plan(number: int, every_s: float) -> list[Arrival]:
    return [Arrival(index * every_s, "get", GET, f"user-{index}") for index in range(number)]


@pytest.mark.parametrize("delay_s", [0.1, 0.3])
def test_known_delays_are_reported_within_five_percent(delay_s: float) -> None:
    with delaying(delay_s) as server:
        results = open_loop(server.port, plan(40, 0.02), clients=40)
        # What the server measured, which on a busy machine is more than the delay.
        known_s = median(server.delays_s)
    assert {result.status for result in results} == {200}
    seen_s = median(result.latency_s - result.late_s for result in results)
    assert seen_s == pytest.approx(known_s, rel=0.05)


def closed_variant(port: int, planned: list[Arrival]) -> list[float]:
    """Send the wrong way: one request after the other, each timed from when it is sent."""
    latencies_s = []
    for arrival in planned:
        (one,) = open_loop(port, [Arrival(0.0, arrival.kind, arrival.request)], clients=1)
        latencies_s.append(one.latency_s)
    return latencies_s


def open_variant(port: int, planned: list[Arrival]) -> list[float]:
    return [result.latency_s for result in open_loop(port, planned, clients=len(planned))]


STALL_S = 0.6


def share_that_waited(send: Callable[[int, list[Arrival]], list[float]]) -> float:
    """Return the share of requests that took a tenth of the stall or more, when a server stalls within 1.2 s."""
    planned = plan(60, 0.02)
    with delaying(0.0) as server:
        timers = [threading.Timer(0.3, server.awake.clear), threading.Timer(0.3 + STALL_S, server.awake.set)]
        for timer in timers:
            timer.start()
        latencies_s = send(server.port, planned)
        for timer in timers:
            timer.join()
    return sum(1 for latency_s in latencies_s if latency_s >= STALL_S / 10) / len(latencies_s)


def test_a_stall_counts_for_all_requests_planned_meanwhile_and_not_only_for_those_in_flight() -> None:
    # Half of the plan falls into the stall; the last tenth of it waits for less than a tenth.
    assert share_that_waited(open_variant) >= 0.4


def test_a_closed_loop_hides_the_stall_which_this_test_would_notice() -> None:
    assert share_that_waited(closed_variant) < 0.4


def test_a_request_that_waits_for_a_connection_counts_from_its_planned_moment_but_not_as_late() -> None:
    with delaying(0.5) as server:
        results = sorted(open_loop(server.port, plan(3, 0.0), clients=1), key=lambda result: result.answered_s)
        known_s = sum(server.delays_s)
    assert results[-1].latency_s >= known_s
    assert results[-1].sent_s >= sum(server.delays_s[:2])
    assert results[-1].late_s < 0.5  # the loop took it up at once; the wait was the server's


def test_a_request_without_a_connection_in_time_is_reported_as_not_sent() -> None:
    with delaying(0.0) as server:
        server.awake.clear()
        results = open_loop(server.port, plan(2, 0.0), clients=1, timeout_s=0.3)
    assert sorted(result.code for result in results) == [NOT_SENT, "NO_ANSWER"]
    assert all(result.status == 0 for result in results)


def test_an_impatient_user_gives_up_and_retries_until_the_last_attempt() -> None:
    def again(arrival: Arrival, result: Result) -> Arrival | None:
        if result.code != GAVE_UP or arrival.attempt == 3:
            return None
        return Arrival(result.answered_s, "again", GET, patience_s=0.2, attempt=arrival.attempt + 1)

    with delaying(0.0) as server:
        server.awake.clear()
        results = open_loop(server.port, [Arrival(0.0, "get", GET, patience_s=0.2)], clients=5, again=again)
    assert [(result.code, result.attempt) for result in results] == [(GAVE_UP, 1), (GAVE_UP, 2), (GAVE_UP, 3)]
    assert all(result.latency_s >= 0.2 for result in results)


def test_the_user_and_the_response_are_recorded() -> None:
    with delaying(0.0) as server:
        (result,) = open_loop(server.port, [Arrival(0.0, "get", GET, "kim")], clients=1)
    assert (result.who, result.status, result.code, result.issuance) == ("kim", 200, "OK", "ABCD")
    assert result.retry_after_s == 7
    assert 0 < result.sent_s <= result.answered_s


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n" + b'{"code": ' + b'\r\n5\r\n"OK"}\r\n0\r\n\r\n'


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (CHUNKED, "OK"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "HTTP_204"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", "HTTP_200"),
        (b'HTTP/1.1 201 C\r\nIdempotency-Replayed: true\r\nContent-Length: 17\r\n\r\n{"code":"ISSUED"}', "REPLAYED"),
        (b'HTTP/1.1 201 Created\r\nContent-Length: 17\r\n\r\n{"code":"ISSUED"}', "ISSUED"),
        (b"not HTTP at all\r\n\r\n", "NO_ANSWER"),
    ],
)
def test_responses_of_every_form_are_parsed_or_reported_as_no_answer(answer: bytes, code: str) -> None:
    with delaying(0.0, answer) as server:
        results = open_loop(server.port, plan(3, 0.01), clients=1, timeout_s=5)
    assert [result.code for result in results] == [code] * 3


def test_a_server_that_does_not_listen_gives_no_answer_and_does_not_stop_the_plan() -> None:
    with delaying(0.0) as server:
        port = server.port
    results = open_loop(port, plan(5, 0.01), clients=2, timeout_s=5)
    assert [result.code for result in results] == ["NO_ANSWER"] * 5


@pytest.mark.parametrize(("idle_s", "connections"), [(0.2, 2), (60.0, 1)])
def test_a_connection_that_was_idle_for_long_is_not_reused(
    idle_s: float, connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The server might close it at that moment, and the request would be lost.
    monkeypatch.setattr(generator, "IDLE_S", idle_s)
    with delaying(0.0) as server:
        assert {one.status for one in open_loop(server.port, plan(2, 0.5), clients=2)} == {200}
        assert server.connections == connections
