"""The batcher: a bounded number of batches run, a bounded number of requests wait, each for a bounded time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from couponapp.errors import ConnectionLost, DeadlineExceeded, QueueFull
from couponapp.guards.batcher import Batcher
from couponapp.guards.deadline import Deadline
from tests.support.servers import wait_until

LONG_S = 30.0


class Desk:
    """Answers requests with their capitals; while it is closed, running batches stay inside."""

    def __init__(
        self,
        *,
        max_waiting: int = 100,
        min_remaining_s: float = 0.0,
        max_batch_size: int = 1,
        max_concurrent: int = 1,
    ) -> None:
        self.opened = threading.Event()
        self.batches: list[list[str]] = []
        self.timeouts_s: list[float] = []
        self.inside = 0
        self.peak = 0
        self._lock = threading.Lock()
        self.batcher: Batcher[str, str, str] = Batcher(
            self._run,
            max_concurrent=max_concurrent,
            max_waiting=max_waiting,
            max_batch_size=max_batch_size,
            min_remaining_s=min_remaining_s,
        )
        self._executor = ThreadPoolExecutor(40)

    def _run(self, batch_key: str, requests: Sequence[str], timeout_s: float) -> list[str]:
        assert {request[0] for request in requests} == {batch_key}
        with self._lock:
            self.inside += 1
            self.peak = max(self.peak, self.inside)
            self.batches.append(list(requests))
            self.timeouts_s.append(timeout_s)
        assert self.opened.wait(LONG_S)
        with self._lock:
            self.inside -= 1
        if "bad" in requests[0]:
            raise ConnectionLost("it broke")
        return [request.upper() for request in requests]

    def submit(self, request: str, deadline: Deadline, on_start: Callable[[], None] = lambda: None) -> str:
        """Submit a request; its first letter is the batch key, and all of it the unique key."""
        return self.batcher.submit(
            request, batch_key=request[0], unique_key=request, deadline=deadline, on_start=on_start
        )

    def ask(self, request: str, *, s: float = LONG_S, on_start: Callable[[], None] = lambda: None) -> Future[str]:
        """Submit in a thread of its own; return when the request runs or waits."""
        before = len(self.batches) + self.batcher.waiting
        asked = self._executor.submit(lambda: self.submit(request, Deadline(s), on_start))
        wait_until(
            lambda: len(self.batches) + self.batcher.waiting > before or asked.done(), timeout_s=10, what="it is there"
        )
        return asked


def test_never_more_batches_run_than_allowed() -> None:
    desk = Desk(max_concurrent=3)
    desk.opened.set()
    with ThreadPoolExecutor(32) as executor:
        answers = list(executor.map(lambda n: desk.submit(f"q{n}", Deadline(LONG_S)), range(200)))
    assert answers == [f"Q{n}" for n in range(200)]
    assert desk.peak <= 3
    assert desk.batcher.waiting == 0


def test_all_slots_are_used() -> None:
    desk = Desk(max_concurrent=3)
    asked = [desk.ask(f"q{n}") for n in range(5)]
    assert (desk.inside, desk.batcher.waiting) == (3, 2)
    desk.opened.set()
    assert [one.result(LONG_S) for one in asked] == [f"Q{n}" for n in range(5)]


def test_one_request_more_than_may_wait_is_refused_at_once() -> None:
    desk = Desk(max_waiting=1)
    inside, waiting = desk.ask("a"), desk.ask("b")
    with pytest.raises(QueueFull):
        desk.submit("c", Deadline(LONG_S))
    desk.opened.set()
    assert (inside.result(LONG_S), waiting.result(LONG_S)) == ("A", "B")


def test_no_request_waits_longer_than_its_deadline_and_no_slot_is_lost_by_it() -> None:
    desk = Desk(max_waiting=1)
    inside = desk.ask("a")
    with pytest.raises(DeadlineExceeded):
        desk.submit("b", Deadline(0.01))
    assert desk.batcher.waiting == 0
    desk.opened.set()
    assert inside.result(LONG_S) == "A"
    assert desk.submit("c", Deadline(LONG_S)) == "C"


def test_an_error_frees_the_slot() -> None:
    desk = Desk(max_waiting=0)
    desk.opened.set()
    with pytest.raises(ConnectionLost, match="it broke"):
        desk.submit("bad", Deadline(LONG_S))
    assert desk.submit("good", Deadline(LONG_S)) == "GOOD"


def test_the_request_that_has_waited_longest_is_next_and_none_overtakes() -> None:
    desk = Desk()
    asked = [desk.ask(f"q{n}") for n in range(20)]
    desk.opened.set()
    asked.append(desk.ask("the last one"))  # comes while the others are being let in
    for one in asked:
        one.result(LONG_S)
    assert desk.batches == [[f"q{n}"] for n in range(20)] + [["the last one"]]


def test_a_request_with_too_little_time_left_is_refused_at_once_and_not_when_the_time_is_up() -> None:
    desk = Desk(min_remaining_s=LONG_S + 1)
    desk.ask("a")
    assert type(desk.ask("b").exception(LONG_S / 3)) is DeadlineExceeded
    assert desk.batcher.waiting == 0
    desk.opened.set()


def test_requests_that_wait_for_the_same_key_share_a_batch_and_the_others_keep_their_turn() -> None:
    desk = Desk(max_batch_size=3)
    asked = [desk.ask(question) for question in ("a0", "b1", "a1", "b2", "b1", "b3", "b4")]
    desk.opened.set()
    assert [one.result(LONG_S) for one in asked] == ["A0", "B1", "A1", "B2", "B1", "B3", "B4"]
    # Three at the most, nobody twice: the second b1 waits for the next group of its kind.
    assert desk.batches == [["a0"], ["b1", "b2", "b3"], ["a1"], ["b1", "b4"]]


def test_a_lone_request_runs_alone_and_at_once() -> None:
    desk = Desk(max_batch_size=50)
    desk.opened.set()
    assert [desk.submit(f"a{n}", Deadline(LONG_S)) for n in range(3)] == ["A0", "A1", "A2"]
    assert desk.batches == [["a0"], ["a1"], ["a2"]]


def test_a_failure_reaches_every_request_of_the_batch_with_an_error_of_its_own() -> None:
    desk = Desk(max_batch_size=3)
    first, *group = [desk.ask(question) for question in ("a", "bad1", "bad2", "bad3")]
    desk.opened.set()
    assert first.result(LONG_S) == "A"
    errors = [one.exception(LONG_S) for one in group]
    assert [(type(error), str(error)) for error in errors] == [(ConnectionLost, "it broke")] * 3
    assert len({id(error) for error in errors}) == 3
    assert desk.submit("good", Deadline(LONG_S)) == "GOOD"


def test_a_batch_has_as_long_as_the_request_with_the_least_time_left() -> None:
    desk = Desk(max_batch_size=3)
    asked = [desk.ask("a"), desk.ask("b1", s=LONG_S), desk.ask("b2", s=LONG_S / 2), desk.ask("b3", s=LONG_S)]
    desk.opened.set()
    for one in asked:
        one.result(LONG_S)
    assert desk.timeouts_s[1] <= LONG_S / 2


def test_every_request_hears_when_its_batch_starts() -> None:
    desk, begun = Desk(max_batch_size=3), list[str]()
    for question in ("a", "b1", "b2"):
        asked = desk.ask(question, on_start=lambda question=question: begun.append(question))  # type: ignore[misc]
    assert begun == ["a"]
    desk.opened.set()
    asked.result(LONG_S)
    assert begun == ["a", "b1", "b2"]


def test_500_callers_with_short_deadlines_leave_no_request_inside_and_no_slot_lost() -> None:
    def run(_: int, requests: Sequence[int], timeout_s: float) -> list[int]:
        threading.Event().wait(0.002)
        return list(requests)

    batcher: Batcher[int, int, int] = Batcher(
        run, max_concurrent=2, max_waiting=100, max_batch_size=5, min_remaining_s=0.005
    )

    def submit(number: int, within_s: float) -> int:
        return batcher.submit(number, batch_key=number % 3, unique_key=number, deadline=Deadline(within_s))

    def is_answered(number: int) -> bool:
        try:
            return submit(number, 0.001 * (number % 40)) == number
        except (DeadlineExceeded, QueueFull):
            return False

    with ThreadPoolExecutor(32) as executor:
        answered = list(executor.map(is_answered, range(500)))
    assert any(answered)
    assert batcher.waiting == 0
    # All slots are free again: as many batches as there are slots run at the same moment.
    meeting = threading.Barrier(2, timeout=LONG_S)

    def meet(_: int, requests: Sequence[int], timeout_s: float) -> list[int]:
        meeting.wait()
        return list(requests)

    batcher._run = meet
    with ThreadPoolExecutor(2) as executor:
        assert sorted(executor.map(lambda n: submit(n, LONG_S), (1, 2))) == [1, 2]
