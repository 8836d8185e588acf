"""The receiver that measures notifications counts each event once, at its first arrival."""

from __future__ import annotations

import socket

import pytest

from loadtest.bench import notifications
from loadtest.bench.notifications import Receiver
from loadtest.driver.http_client import HOST

ACCEPTED = b"HTTP/1.1 204 No Content\r\n\r\n"


def event(key: str, body: bytes = b'{"a": 1}') -> bytes:
    return f"POST / HTTP/1.1\r\nWebhook-Id: {key}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def test_an_event_in_pieces_counts_once_and_a_repeat_does_not_change_when() -> None:
    receiver = Receiver()
    with socket.create_connection((HOST, receiver.port), timeout=20) as connection:
        for part in (event("one")[:9], event("one")[9:-1], event("one")[-1:]):
            connection.sendall(part)
        assert connection.recv(100) == ACCEPTED
        first_s = receiver.at_s["one"]
        for key in ("one", "two"):
            connection.sendall(event(key))
            assert connection.recv(100) == ACCEPTED
    assert list(receiver.at_s) == ["one", "two"]
    assert receiver.at_s["one"] == first_s < receiver.at_s["two"]


@pytest.mark.parametrize("arguments", [["--messages", "0"], ["--turns", "0"], ["--turns", "101"], ["--turns", "x"]])
def test_a_wrong_number_stops_before_anything_is_started(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        notifications.main(arguments)
    assert stopped.value.code == 2
