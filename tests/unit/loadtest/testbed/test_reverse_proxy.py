"""The reverse proxy sends to servers that are in, and takes one out without losing a request."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from couponapp.local.postgres import free_port
from loadtest.driver.http_client import HttpConnection, request_bytes
from loadtest.testbed.listener import Listener
from loadtest.testbed.reverse_proxy import ReverseProxy

GET = request_bytes("GET", "/")


class Server(Listener):
    """Answers with its name and closes, as it is asked to; may be held up."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.asked = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()
        self.requests: list[bytes] = []
        super().__init__()

    def _serve(self, client: socket.socket) -> None:
        self.requests.append(client.recv(65_536))
        self.asked.release()
        assert self.gate.wait(20)
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(self.name)
        with client:
            client.sendall(head + self.name)


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(contextlib.closing(Server(name))) for name in (b"one", b"two")]


@pytest.fixture
def proxy(servers: list[Server]) -> Iterator[ReverseProxy]:
    with contextlib.closing(ReverseProxy([server.port for server in servers])) as proxy:
        yield proxy


def answers(proxy: ReverseProxy, number: int) -> list[bytes]:
    """The bodies of so many requests on one connection; it fails where that is not kept."""
    connection = HttpConnection(proxy.port)
    replies = [connection.exchange(GET) for _ in range(number)]
    connection.close()
    assert [reply.closes for reply in replies] == [False] * number
    return [reply.body for reply in replies]


def test_clients_keep_their_connection_although_each_request_gets_a_new_one_behind_it(
    proxy: ReverseProxy, servers: list[Server]
) -> None:
    assert answers(proxy, 3) == [b"one"] * 3
    assert all(b"\r\nConnection: close\r\n" in request for request in servers[0].requests)


def test_a_request_goes_to_the_server_that_has_the_fewest_in_flight(proxy: ReverseProxy, servers: list[Server]) -> None:
    servers[0].gate.clear()
    with ThreadPoolExecutor(1) as executor:
        held = executor.submit(answers, proxy, 1)
        assert servers[0].asked.acquire(timeout=20)
        assert answers(proxy, 2) == [b"two"] * 2
        servers[0].gate.set()
        assert held.result(20) == [b"one"]


def test_a_server_that_is_taken_out_answers_what_it_has_and_gets_nothing_more_until_it_is_in_again(
    proxy: ReverseProxy, servers: list[Server]
) -> None:
    servers[0].gate.clear()
    with ThreadPoolExecutor(2) as executor:
        held = executor.submit(answers, proxy, 1)
        assert servers[0].asked.acquire(timeout=20)
        out = executor.submit(proxy.take_out, proxy.upstreams[0])
        assert answers(proxy, 2) == [b"two"] * 2
        assert not out.done()
        servers[0].gate.set()
        assert (held.result(20), out.result(20)) == ([b"one"], None)
    assert answers(proxy, 2) == [b"two"] * 2
    proxy.put_in(proxy.upstreams[0])
    assert answers(proxy, 1) == [b"one"]


def test_without_a_server_that_answers_it_is_a_502() -> None:
    with contextlib.closing(ReverseProxy([free_port()])) as proxy:
        assert HttpConnection(proxy.port).exchange(GET).status == 502
        proxy.take_out(proxy.upstreams[0])
        assert HttpConnection(proxy.port).exchange(GET).status == 502
