"""The watchdog shuts what is used for too long, and nothing else."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from couponapp.storage.watchdog import Watchdog

LONG_S = 600.0


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a connection; whoever reads gives up after a bound."""
    ends = socket.socketpair()
    for end in ends:
        end.settimeout(20)
    yield ends
    for end in ends:
        end.close()


def test_a_connection_whose_time_is_over_is_shut_and_its_reader_wakes_up(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    watch = Watchdog().watch(pair[0], 0.0)
    assert pair[0].recv(1) == b""
    assert watch.stop()


def test_an_earlier_end_is_not_missed_while_a_later_one_is_waited_for(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    other, _ = others = socket.socketpair()
    watchdog = Watchdog()
    later = watchdog.watch(other, LONG_S)
    watchdog.watch(pair[0], 0.0)
    assert pair[0].recv(1) == b""
    assert not later.stop()
    for one in others:
        one.close()


def test_a_use_that_was_ended_in_time_leaves_the_connection_alone(pair: tuple[socket.socket, socket.socket]) -> None:
    watchdog, other = Watchdog(), socket.socketpair()
    assert not watchdog.watch(pair[0], LONG_S).stop()
    watchdog.watch(other[0], 0.0)
    other[0].settimeout(20)
    assert other[0].recv(1) == b""  # the watchdog has looked at all of them
    pair[1].sendall(b"!")
    assert pair[0].recv(1) == b"!"
    for one in other:
        one.close()


def test_a_connection_that_has_gone_already_does_not_stop_the_watchdog(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    class Gone:
        def fileno(self) -> int:
            raise OSError("not connected")

    watchdog = Watchdog()
    watchdog.watch(Gone(), 0.0)
    watchdog.watch(pair[0], 0.0)
    assert pair[0].recv(1) == b""
