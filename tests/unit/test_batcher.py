"""Places: a bounded number inside, a bounded number waiting, each for a bounded time, some together."""

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
    """Answers questions with themselves; while it is shut, the group that is being served stays inside."""

    def __init__(self, *, max_waiting: int = 100, reserve_s: float = 0.0, max_group: int = 1, places: int = 1) -> None:
        self.opened = threading.Event()
        self.groups: list[list[str]] = []
        self.timeouts_s: list[float] = []
        self.inside = 0
        self.peak = 0
        self._lock = threading.Lock()
        self.bulkhead = Batcher(
            self._serve,
            places=places,
            max_waiting=max_waiting,
            reserve_s=reserve_s,
            same=lambda question: question[0],  # the first letter
            only_once=lambda question: question,
            max_group=max_group,
        )
        self._executor = ThreadPoolExecutor(40)

    def _serve(self, questions: Sequence[str], timeout_s: float) -> list[str]:
        with self._lock:
            self.inside += 1
            self.peak = max(self.peak, self.inside)
            self.groups.append(list(questions))
            self.timeouts_s.append(timeout_s)
        assert self.opened.wait(LONG_S)
        with self._lock:
            self.inside -= 1
        if "bad" in questions[0]:
            raise ConnectionLost("it broke")
        return [question.upper() for question in questions]

    def ask(self, question: str, *, s: float = LONG_S, begins: Callable[[], None] = lambda: None) -> Future[str]:
        """Ask in a thread of its own; returns when the question is inside or waits."""
        before = len(self.groups) + self.bulkhead.waiting
        asked = self._executor.submit(lambda: self.bulkhead.ask(question, Deadline(s), begins=begins))
        wait_until(
            lambda: len(self.groups) + self.bulkhead.waiting > before or asked.done(), timeout_s=10, what="it is there"
        )
        return asked


def test_never_more_are_inside_than_there_are_places() -> None:
    desk = Desk(places=3)
    desk.opened.set()
    with ThreadPoolExecutor(32) as executor:
        answers = list(executor.map(lambda n: desk.bulkhead.ask(f"q{n}", Deadline(LONG_S)), range(200)))
    assert answers == [f"Q{n}" for n in range(200)]
    assert desk.peak <= 3
    assert desk.bulkhead.waiting == 0


def test_all_places_are_used() -> None:
    desk = Desk(places=3)
    asked = [desk.ask(f"q{n}") for n in range(5)]
    assert (desk.inside, desk.bulkhead.waiting) == (3, 2)
    desk.opened.set()
    assert [one.result(LONG_S) for one in asked] == [f"Q{n}" for n in range(5)]


def test_one_more_than_may_wait_is_refused_at_once() -> None:
    desk = Desk(max_waiting=1)
    inside, waiting = desk.ask("a"), desk.ask("b")
    with pytest.raises(QueueFull):
        desk.bulkhead.ask("c", Deadline(LONG_S))
    desk.opened.set()
    assert (inside.result(LONG_S), waiting.result(LONG_S)) == ("A", "B")


def test_nobody_waits_longer_than_the_deadline_and_a_place_is_not_lost_by_it() -> None:
    desk = Desk(max_waiting=1)
    inside = desk.ask("a")
    with pytest.raises(DeadlineExceeded):
        desk.bulkhead.ask("b", Deadline(0.01))
    assert desk.bulkhead.waiting == 0
    desk.opened.set()
    assert inside.result(LONG_S) == "A"
    assert desk.bulkhead.ask("c", Deadline(LONG_S)) == "C"


def test_an_error_inside_gives_the_place_back() -> None:
    desk = Desk(max_waiting=0)
    desk.opened.set()
    with pytest.raises(ConnectionLost, match="it broke"):
        desk.bulkhead.ask("bad", Deadline(LONG_S))
    assert desk.bulkhead.ask("good", Deadline(LONG_S)) == "GOOD"


def test_who_has_waited_longest_is_next_and_nobody_overtakes() -> None:
    desk = Desk()
    asked = [desk.ask(f"q{n}") for n in range(20)]
    desk.opened.set()
    asked.append(desk.ask("the last one"))  # comes while the others are being let in
    for one in asked:
        one.result(LONG_S)
    assert desk.groups == [[f"q{n}"] for n in range(20)] + [["the last one"]]


def test_who_has_too_little_time_left_is_refused_at_once_and_not_when_the_time_is_up() -> None:
    desk = Desk(reserve_s=LONG_S + 1)
    desk.ask("a")
    assert type(desk.ask("b").exception(LONG_S / 3)) is DeadlineExceeded
    assert desk.bulkhead.waiting == 0
    desk.opened.set()


def test_those_who_wait_for_the_same_thing_are_served_together_and_the_others_keep_their_turn() -> None:
    desk = Desk(max_group=3)
    asked = [desk.ask(question) for question in ("a0", "b1", "a1", "b2", "b1", "b3", "b4")]
    desk.opened.set()
    assert [one.result(LONG_S) for one in asked] == ["A0", "B1", "A1", "B2", "B1", "B3", "B4"]
    # Three at the most, nobody twice: the second b1 waits for the next group of its kind.
    assert desk.groups == [["a0"], ["b1", "b2", "b3"], ["a1"], ["b1", "b4"]]


def test_alone_one_is_served_alone_and_at_once() -> None:
    desk = Desk(max_group=50)
    desk.opened.set()
    assert [desk.bulkhead.ask(f"a{n}", Deadline(LONG_S)) for n in range(3)] == ["A0", "A1", "A2"]
    assert desk.groups == [["a0"], ["a1"], ["a2"]]


def test_what_fails_fails_for_all_of_a_group_each_with_an_error_of_its_own() -> None:
    desk = Desk(max_group=3)
    first, *group = [desk.ask(question) for question in ("a", "bad1", "bad2", "bad3")]
    desk.opened.set()
    assert first.result(LONG_S) == "A"
    errors = [one.exception(LONG_S) for one in group]
    assert [(type(error), str(error)) for error in errors] == [(ConnectionLost, "it broke")] * 3
    assert len({id(error) for error in errors}) == 3
    assert desk.bulkhead.ask("good", Deadline(LONG_S)) == "GOOD"


def test_a_group_has_as_long_as_the_one_of_them_that_has_least() -> None:
    desk = Desk(max_group=3)
    asked = [desk.ask("a"), desk.ask("b1", s=LONG_S), desk.ask("b2", s=LONG_S / 2), desk.ask("b3", s=LONG_S)]
    desk.opened.set()
    for one in asked:
        one.result(LONG_S)
    assert desk.timeouts_s[1] <= LONG_S / 2


def test_everybody_is_told_when_the_service_begins() -> None:
    desk, begun = Desk(max_group=3), list[str]()
    for question in ("a", "b1", "b2"):
        asked = desk.ask(question, begins=lambda question=question: begun.append(question))  # type: ignore[misc]
    assert begun == ["a"]
    desk.opened.set()
    asked.result(LONG_S)
    assert begun == ["a", "b1", "b2"]


def test_500_callers_with_short_deadlines_leave_nobody_inside_and_no_place_lost() -> None:
    bulkhead: Batcher[int, int] = Batcher(
        lambda questions, _: [threading.Event().wait(0.002) or question for question in questions],
        places=2,
        max_waiting=100,
        reserve_s=0.005,
        same=lambda question: question % 3,
        max_group=5,
    )

    def ask(number: int) -> bool:
        try:
            return bulkhead.ask(number, Deadline(0.001 * (number % 40))) == number
        except (DeadlineExceeded, QueueFull):
            return False

    with ThreadPoolExecutor(32) as executor:
        answered = list(executor.map(ask, range(500)))
    assert any(answered)
    assert bulkhead.waiting == 0
    # All places are free again: as many as there are can be inside at the same moment.
    meeting = threading.Barrier(2, timeout=LONG_S)
    bulkhead._serve = lambda questions, _: [(meeting.wait() and question) or question for question in questions]
    with ThreadPoolExecutor(2) as executor:
        assert sorted(executor.map(lambda n: bulkhead.ask(n, Deadline(LONG_S)), (1, 2))) == [1, 2]
