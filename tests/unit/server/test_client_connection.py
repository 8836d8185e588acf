"""A client has a bound for each step, and the connection knows whose turn it is."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from gunicorn.http.errors import LimitRequestHeaders

from couponapp.server.client_connection import MAX_HEAD_BYTES, ClientConnection, TooSlow

LONG_S = 600.0


class Site:
    """The server's end of a connection, and its client."""

    def __init__(self) -> None:
        self.own, self.client = socket.socketpair()
        self.client.settimeout(20)
        self.waiting: dict[ClientConnection, None] = {}

    def connection(self, *, idle_s: float = LONG_S, timeout_s: float = LONG_S) -> ClientConnection:
        return ClientConnection(self.own, self.waiting, idle_s=idle_s, timeout_s=timeout_s)


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.own.close()
    made.client.close()


def drain(connection: ClientConnection, size: int) -> None:
    """Read so many bytes."""
    while size:
        size -= len(connection.recv(size))


def test_a_client_that_sends_nothing_is_treated_as_one_that_has_left(site: Site) -> None:
    assert site.connection(idle_s=0.0).recv(100) == b""


def test_a_client_that_has_begun_has_the_longer_time_and_is_then_too_slow(site: Site) -> None:
    connection = site.connection(timeout_s=0.0)
    site.client.sendall(b"G")
    assert connection.recv(100) == b"G"
    with pytest.raises(TooSlow):
        connection.recv(100)


def test_a_head_may_have_so_many_bytes_and_no_more_and_a_body_does_not_count(site: Site) -> None:
    connection = site.connection()
    site.client.sendall(bytes(MAX_HEAD_BYTES))
    drain(connection, MAX_HEAD_BYTES)
    connection.await_body(ask=False)
    site.client.sendall(b"body")
    assert connection.recv(100) == b"body"
    connection.await_request()
    site.client.sendall(bytes(MAX_HEAD_BYTES))
    connection.recv(1)
    site.client.sendall(b"!")
    with pytest.raises(LimitRequestHeaders):
        drain(connection, MAX_HEAD_BYTES)


def test_a_client_that_waits_for_it_is_told_to_continue(site: Site) -> None:
    connection = site.connection()
    connection.await_body(ask=False)
    connection.await_body(ask=True)
    assert site.client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"


def test_it_waits_for_its_client_except_while_the_request_is_served(site: Site) -> None:
    connection = site.connection()
    assert list(site.waiting) == [connection]
    connection.mark_served()
    assert list(site.waiting) == []
    connection.sendall(b"a response that the client has to read")
    assert list(site.waiting) == [connection]


def test_an_evicted_client_has_left_for_whoever_reads_or_writes(site: Site) -> None:
    connection = site.connection()
    connection.evict()
    assert connection.recv(100) == b""
    assert site.client.recv(100) == b""
    with pytest.raises(BrokenPipeError):
        connection.sendall(b"x")


def test_a_client_that_does_not_read_its_response_in_time_is_gone(site: Site) -> None:
    connection = site.connection(timeout_s=0.0)
    with pytest.raises(BrokenPipeError):
        connection.sendall(b"x")


def test_a_file_is_sent_from_its_offset_in_pieces_and_not_beyond_its_count(site: Site, tmp_path: Path) -> None:
    with open(tmp_path / "file", "w+b") as file:
        file.write(b"0123456789")
        site.connection().sendfile(file, offset=2, count=5)
    site.own.shutdown(socket.SHUT_WR)
    assert b"".join(iter(lambda: site.client.recv(100), b"")) == b"23456"
