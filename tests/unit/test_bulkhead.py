"""Places: a bounded number inside, a bounded number waiting, each for a bounded time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from couponapp.errors import DeadlineExceeded, Shed
from couponapp.guards.bulkhead import Bulkhead
from couponapp.guards.deadline import Deadline
from tests.servers import wait_until

LONG_S = 30.0


def test_never_more_are_inside_than_there_are_places() -> None:
    bulkhead, lock = Bulkhead(3, max_waiting=100), threading.Lock()
    inside, peak = 0, 0

    def enter(_: int) -> None:
        nonlocal inside, peak
        with bulkhead.place(Deadline(LONG_S)):
            with lock:
                inside += 1
                peak = max(peak, inside)
            threading.Event().wait(0.001)
            with lock:
                inside -= 1

    with ThreadPoolExecutor(32) as executor:
        list(executor.map(enter, range(200)))
    assert peak == 3
    assert bulkhead.waiting == 0


def test_one_more_than_may_wait_is_refused_at_once() -> None:
    bulkhead = Bulkhead(1, max_waiting=1)

    def enter() -> None:
        with bulkhead.place(Deadline(LONG_S)):
            pass

    with ThreadPoolExecutor(1) as executor:
        with bulkhead.place(Deadline(LONG_S)):
            waiting = executor.submit(enter)
            wait_until(lambda: bulkhead.waiting == 1, timeout_s=5, what="one waits")
            with pytest.raises(Shed):
                enter()
        waiting.result(5)


def test_nobody_waits_longer_than_the_deadline_and_a_place_is_not_lost_by_it() -> None:
    bulkhead = Bulkhead(1, max_waiting=1)
    with bulkhead.place(Deadline(LONG_S)), pytest.raises(DeadlineExceeded), bulkhead.place(Deadline(0.01)):
        pass
    with bulkhead.place(Deadline(0.01)):
        assert bulkhead.waiting == 0


def test_an_error_inside_gives_the_place_back() -> None:
    bulkhead = Bulkhead(1, max_waiting=0)
    with pytest.raises(ValueError, match="inside"), bulkhead.place(Deadline(LONG_S)):
        raise ValueError("inside")
    with bulkhead.place(Deadline(LONG_S)):
        pass


def test_who_has_waited_longest_is_next_and_nobody_overtakes() -> None:
    bulkhead, order = Bulkhead(1, max_waiting=20), list[int]()

    def enter(number: int) -> None:
        with bulkhead.place(Deadline(LONG_S)):
            order.append(number)

    with ThreadPoolExecutor(20) as executor:
        with bulkhead.place(Deadline(LONG_S)):
            for number in range(20):
                executor.submit(enter, number)
                wait_until(lambda: bulkhead.waiting == number + 1, timeout_s=5, what="it waits")  # noqa: B023  # at once
        enter(20)  # comes while the others are being let in
    assert order == list(range(21))


def test_who_has_too_little_time_left_is_refused_at_once_and_not_when_the_time_is_up() -> None:
    bulkhead = Bulkhead(1, max_waiting=10, reserve_s=LONG_S + 1)

    def enter() -> None:
        with bulkhead.place(Deadline(LONG_S)):
            pass

    with ThreadPoolExecutor(1) as executor, bulkhead.place(Deadline(LONG_S)):
        assert type(executor.submit(enter).exception(LONG_S / 3)) is DeadlineExceeded
        assert bulkhead.waiting == 0
