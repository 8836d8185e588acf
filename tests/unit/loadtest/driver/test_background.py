"""Work in the background of a block ends with it."""

from __future__ import annotations

import threading

import pytest

from loadtest.driver.background import running_in_background


def test_it_works_again_and_again_until_the_block_ends_and_then_no_more() -> None:
    calls, thrice = [0], threading.Event()

    def work() -> None:
        calls[0] += 1
        if calls[0] == 3:
            thrice.set()

    with running_in_background(work, every_s=0.001):
        assert thrice.wait(20)
    assert not any(thread.name == "background" for thread in threading.enumerate())


def test_the_end_of_a_block_waits_for_the_call_under_way_also_after_an_error() -> None:
    entered, released, finished = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        entered.set()
        assert released.wait(20)
        sum(range(300_000))  # long enough for the block's end to come first
        finished.set()

    def fail() -> None:
        assert entered.wait(20)
        released.set()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), running_in_background(work, every_s=0.0):
        fail()
    assert finished.is_set()


def test_a_long_pause_does_not_hold_up_the_end_of_the_block() -> None:
    with running_in_background(lambda: None, every_s=3_600.0):
        pass
    assert not any(thread.name == "background" for thread in threading.enumerate())
