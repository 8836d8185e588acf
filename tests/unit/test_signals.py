"""A signal sets the flag that a loop checks."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from couponapp.signals import StopSignal


@pytest.fixture
def stop() -> Iterator[StopSignal]:
    before = signal.getsignal(signal.SIGUSR1)
    yield StopSignal(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)


def test_a_signal_sets_the_flag_and_ends_a_wait_at_once(stop: StopSignal) -> None:
    assert not stop.wait(0.0)
    signal.raise_signal(signal.SIGUSR1)
    assert stop.is_set()
    assert stop.wait(3_600.0)


def test_a_wait_without_a_signal_ends_with_its_time(stop: StopSignal) -> None:
    assert not stop.wait(0.01)
    stop.set()
    assert stop.wait(0.01)
