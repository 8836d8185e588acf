"""The watchdog shuts what is used for too long, and nothing else."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from couponapp.storage.watchdog import Watchdog
from tests.support.clock import Clock

LONG_S = 600.0


Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    """Connections with both their ends; whoever reads gives up after a bound."""
    made = [socket.socketpair() for _ in range(3)]
    ends = [end for pair in made for end in pair]
    for end in ends:
        end.settimeout(20)
    yield made
    for end in ends:
        end.close()


def test_a_connection_whose_time_is_over_is_shut_and_its_reader_wakes_up(pairs: list[Pair]) -> None:
    connection, _ = pairs[0]
    watch = Watchdog().watch(connection, 0.0)
    assert connection.recv(1) == b""
    assert watch.stop()


def test_a_time_that_ends_before_all_others_is_noticed_while_the_watchdog_waits(pairs: list[Pair]) -> None:
    (first, _), (patient, _), (urgent, _) = pairs
    watchdog = Watchdog()
    watchdog.watch(first, 0.0)
    assert first.recv(1) == b""  # from now on it waits
    later = watchdog.watch(patient, LONG_S)
    watchdog.watch(urgent, 0.0)
    assert urgent.recv(1) == b""
    assert not later.stop()


def test_a_use_that_has_ended_in_time_leaves_the_connection_alone_when_its_time_comes(pairs: list[Pair]) -> None:
    (connection, peer), (other, _), _ = pairs
    clock = Clock()
    watchdog = Watchdog(clock)
    watch = watchdog.watch(connection, 10.0)
    assert not watch.stop()
    clock.move(10.0)
    watchdog.watch(other, -5.0)  # earlier than the first one, so the watchdog looks at both
    assert other.recv(1) == b""
    assert not watch.stop()
    peer.sendall(b"!")
    assert connection.recv(1) == b"!"


def test_a_connection_that_has_gone_already_does_not_stop_the_watchdog(pairs: list[Pair]) -> None:
    class Gone:
        def fileno(self) -> int:
            raise OSError("not connected")

    connection, _ = pairs[0]
    watchdog = Watchdog()
    watchdog.watch(Gone(), 0.0)
    watchdog.watch(connection, 0.0)
    assert connection.recv(1) == b""
