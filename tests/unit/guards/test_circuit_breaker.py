"""The circuit breaker against resilience4j's behaviour, on a clock that the test moves."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pybreaker
import pytest

from couponapp.errors import Unavailable
from couponapp.guards.circuit_breaker import CircuitBreaker, Forced, Refused, Rules, StateLog
from tests.support.breaker_model import Down, Held, OurFault
from tests.support.clock import Clock

CLOSED, OPEN, HALF_OPEN = pybreaker.STATE_CLOSED, pybreaker.STATE_OPEN, pybreaker.STATE_HALF_OPEN


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return make(clock)


def make(clock: Callable[[], float], **rules: Any) -> CircuitBreaker:
    return CircuitBreaker("test", is_failure=lambda error: isinstance(error, Down), rules=Rules(**rules), clock=clock)


def succeed(breaker: CircuitBreaker) -> str:
    return breaker.call(lambda: "done")


def fail(breaker: CircuitBreaker, error: type[Exception] = Down) -> None:
    def raise_it() -> None:
        raise error

    with pytest.raises(error):
        breaker.call(raise_it)


def run(breaker: CircuitBreaker, results: Iterable[bool]) -> None:
    for result in results:
        succeed(breaker) if result else fail(breaker)


def trip(breaker: CircuitBreaker) -> None:
    run(breaker, [False] * 100)
    assert breaker.current_state == OPEN


def test_half_of_the_window_opens_and_one_less_does_not(clock: Clock) -> None:
    at, below = make(clock), make(clock)
    run(at, [True] * 50 + [False] * 50)
    run(below, [True] * 51 + [False] * 49)
    assert (at.current_state, below.current_state) == (OPEN, CLOSED)


def test_a_success_can_be_the_call_that_opens(breaker: CircuitBreaker) -> None:
    run(breaker, [False] * 50 + [True] * 49)
    assert breaker.current_state == CLOSED
    succeed(breaker)
    assert breaker.current_state == OPEN


def test_only_the_last_calls_count(breaker: CircuitBreaker) -> None:
    run(breaker, [False] * 49 + [True] * 100)
    assert breaker.rates().failed == 0
    run(breaker, [False] * 49)
    assert breaker.current_state == CLOSED
    fail(breaker)
    assert breaker.current_state == OPEN


def test_stock_pybreaker_stays_closed_although_nearly_all_calls_fail() -> None:
    # The negative control: it counts consecutive failures, and a success every forty calls resets.
    stock = pybreaker.CircuitBreaker(fail_max=50, exclude=[])
    for number in range(1000):
        if number % 40 == 39:
            stock.call(lambda: None)
        else:
            with pytest.raises(ZeroDivisionError):
                stock.call(lambda: 1 / 0)
    assert stock.current_state == CLOSED


def test_no_decision_before_the_minimum_and_a_minimum_beyond_the_window_is_the_window(clock: Clock) -> None:
    early = make(clock, min_calls=5)
    run(early, [False] * 4)
    assert early.current_state == CLOSED
    fail(early)
    assert early.current_state == OPEN
    clamped = make(clock, window=10, min_calls=1000)
    run(clamped, [False] * 10)
    assert clamped.current_state == OPEN


def test_the_tripping_error_reaches_its_caller_as_it_is(breaker: CircuitBreaker) -> None:
    run(breaker, [False] * 99)
    fail(breaker, Down)
    assert breaker.current_state == OPEN


def test_open_refuses_without_calling_for_exactly_its_time(breaker: CircuitBreaker, clock: Clock) -> None:
    trip(breaker)
    for later_s in (0.0, 4.999, 5.0):
        clock.now_s = 1000.0 + later_s
        with pytest.raises(Refused):
            breaker.call(pytest.fail)
    clock.now_s = 1005.001
    assert succeed(breaker) == "done"
    assert breaker.current_state == HALF_OPEN


def test_a_refusal_is_pybreakers_and_ours() -> None:
    assert issubclass(Refused, pybreaker.CircuitBreakerError)
    assert issubclass(Refused, Unavailable)


def half_open(breaker: CircuitBreaker, clock: Clock) -> None:
    trip(breaker)
    clock.now_s += 5.001


@pytest.mark.parametrize(
    ("results", "expected"),
    [([True] * 10, CLOSED), ([True] * 6 + [False] * 4, CLOSED), ([True] * 5 + [False] * 5, OPEN), ([False] * 10, OPEN)],
)
def test_half_open_decides_after_the_tenth_result(
    breaker: CircuitBreaker, clock: Clock, results: list[bool], expected: str
) -> None:
    half_open(breaker, clock)
    run(breaker, results[:9])
    assert breaker.current_state == HALF_OPEN
    run(breaker, results[9:])
    assert breaker.current_state == expected


def test_half_open_admits_ten_calls_and_refuses_the_eleventh_at_once(breaker: CircuitBreaker, clock: Clock) -> None:
    half_open(breaker, clock)
    inside = [Held(breaker) for _ in range(10)]
    with pytest.raises(Refused):
        breaker.call(pytest.fail)
    for one in inside:
        one.end()
    assert breaker.current_state == CLOSED


def test_an_error_that_is_no_failure_of_the_system_does_not_count(breaker: CircuitBreaker, clock: Clock) -> None:
    for _ in range(1000):
        fail(breaker, OurFault)
    assert breaker.rates().calls == 0
    half_open(breaker, clock)
    for _ in range(1000):
        fail(breaker, OurFault)  # its permit is given back
    assert breaker.current_state == HALF_OPEN
    run(breaker, [True] * 10)
    assert breaker.current_state == CLOSED


def test_a_late_result_of_an_earlier_state_does_not_count(breaker: CircuitBreaker, clock: Clock) -> None:
    late = [Held(breaker) for _ in range(200)]
    half_open(breaker, clock)
    succeed(breaker)
    for one in late:
        one.end(Down())
    assert breaker.current_state == HALF_OPEN
    assert breaker.rates().calls == 1


def test_a_late_result_of_an_earlier_closed_state_does_not_count_in_a_later_one(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    late = [Held(breaker) for _ in range(200)]
    half_open(breaker, clock)
    run(breaker, [True] * 10)
    assert breaker.current_state == CLOSED
    for one in late:
        one.end(Down())
    assert breaker.current_state == CLOSED
    assert breaker.rates().calls == 0


def test_half_open_cannot_hang_on_calls_that_never_return(breaker: CircuitBreaker, clock: Clock) -> None:
    half_open(breaker, clock)
    lost = [Held(breaker) for _ in range(10)]
    clock.now_s += 10.0
    with pytest.raises(Refused):
        succeed(breaker)
    clock.now_s += 0.001
    run(breaker, [True] * 9)
    lost[0].end(Down())  # too late to count
    assert breaker.current_state == HALF_OPEN
    succeed(breaker)
    assert breaker.current_state == CLOSED


def test_a_result_that_is_too_late_for_its_permit_does_not_count_even_if_the_permit_is_unused(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    half_open(breaker, clock)
    lost = [Held(breaker) for _ in range(10)]
    clock.now_s += 10.001
    for one in lost:
        one.end()
    assert (breaker.current_state, breaker.rates().calls) == (HALF_OPEN, 0)


def test_the_minimum_of_calls_does_not_cut_half_open_short(clock: Clock) -> None:
    breaker = make(clock, window=20, min_calls=2)
    run(breaker, [False] * 2)
    clock.now_s += 5.001
    run(breaker, [False] * 9)
    assert breaker.current_state == HALF_OPEN
    fail(breaker)
    assert breaker.current_state == OPEN


def takes(breaker: CircuitBreaker, clock: Clock, seconds: float, error: Exception | None = None) -> None:
    call = Held(breaker)
    clock.now_s += seconds
    call.end(error)


def test_slow_calls_open_the_circuit_too(clock: Clock) -> None:
    at, below = make(clock, slow_call_s=1.0, slow_rate=50), make(clock, slow_call_s=1.0, slow_rate=50)
    for number in range(100):
        takes(at, clock, 1.25 if number % 2 else 1.0)
        takes(below, clock, 1.25 if number % 2 and number > 1 else 1.0)
    assert (at.current_state, at.rates().slow) == (OPEN, 50)
    assert (below.current_state, below.rates().slow) == (CLOSED, 49)


def test_a_failure_can_be_slow_too_and_the_two_rates_do_not_add_up(clock: Clock) -> None:
    breaker = make(clock, window=10, slow_call_s=1.0, slow_rate=50)
    for number in range(10):
        takes(breaker, clock, 1.25 if number < 4 else 0.0, Down() if number < 4 else None)
    rates = breaker.rates()
    assert (breaker.current_state, rates.failed, rates.slow) == (CLOSED, 40, 40)


def test_slow_calls_keep_half_open_from_closing(clock: Clock) -> None:
    breaker = make(clock, slow_call_s=1.0, slow_rate=50)
    half_open(breaker, clock)
    for number in range(10):
        assert breaker.current_state == HALF_OPEN or number == 0
        takes(breaker, clock, 1.25 if number % 2 else 0.0)
    assert breaker.current_state == OPEN


def waits_then_asks(breaker: CircuitBreaker, clock: Clock, *, begins: bool) -> None:
    with breaker.calling() as call:
        clock.now_s += 5.0  # for a place of ours
        if begins:
            call.begin()
        clock.now_s += 1.0  # for the guarded system


def test_waits_before_the_call_begins_do_not_make_it_slow(clock: Clock) -> None:
    breaker = make(clock, window=4, slow_call_s=1.0, slow_rate=50)
    for _ in range(4):
        waits_then_asks(breaker, clock, begins=True)
    assert (breaker.current_state, breaker.rates().slow) == (CLOSED, 0)
    for _ in range(2):  # the control: without a word of when it begins, it is as long as the block
        waits_then_asks(breaker, clock, begins=False)
    assert breaker.current_state == OPEN


def test_a_permit_expires_from_its_admission_not_from_the_beginning_of_its_call(clock: Clock) -> None:
    breaker = make(clock, permit_s=2.0)
    half_open(breaker, clock)
    calls = [Held(breaker) for _ in range(10)]
    clock.now_s += 2.0
    for call in calls:
        call.begin()
    with pytest.raises(Refused):
        succeed(breaker)
    clock.now_s += 0.001
    assert succeed(breaker) == "done"


def test_a_listener_that_fails_before_the_call_releases_its_permit(clock: Clock) -> None:
    class Broken(pybreaker.CircuitBreakerListener):
        def before_call(self, cb: pybreaker.CircuitBreaker, func: Any, *args: Any, **kwargs: Any) -> None:
            raise OurFault

    breaker, broken = make(clock), Broken()
    half_open(breaker, clock)
    breaker.add_listener(broken)
    for _ in range(20):
        fail(breaker, OurFault)
    breaker.remove_listener(broken)
    run(breaker, [True] * 10)
    assert breaker.current_state == CLOSED


def test_forced_open_refuses_all_for_as_long_as_it_is_forced(breaker: CircuitBreaker, clock: Clock) -> None:
    breaker.force(Forced.OPEN)
    clock.now_s += 3600
    with pytest.raises(Refused):
        breaker.call(pytest.fail)
    breaker.force(Forced.NO)
    assert succeed(breaker) == "done"
    assert breaker.current_state == CLOSED


def test_forced_closed_lets_all_through_and_shows_the_rates(breaker: CircuitBreaker, clock: Clock) -> None:
    trip(breaker)
    breaker.force(Forced.CLOSED)
    run(breaker, [False] * 500)
    assert succeed(breaker) == "done"
    assert (breaker.current_state, breaker.rates().failed) == (CLOSED, 99)
    breaker.force(Forced.NO)  # and begins anew
    assert breaker.rates().calls == 0
    trip(breaker)


def test_repeating_the_operators_setting_has_no_effect(breaker: CircuitBreaker) -> None:
    breaker.force(Forced.CLOSED)
    run(breaker, [False] * 5)
    breaker.force(Forced.CLOSED)
    assert breaker.rates().calls == 5
    breaker.force(Forced.NO)
    run(breaker, [False] * 99)
    breaker.force(Forced.NO)
    fail(breaker)
    assert breaker.current_state == OPEN


def test_results_of_calls_under_way_when_it_was_forced_do_not_count(breaker: CircuitBreaker) -> None:
    before = [Held(breaker) for _ in range(200)]
    breaker.force(Forced.OPEN)
    breaker.force(Forced.NO)
    for one in before:
        one.end(Down())
    assert (breaker.current_state, breaker.rates().calls) == (CLOSED, 0)


def test_an_open_circuit_shows_what_opened_it_and_how_many_it_refused(breaker: CircuitBreaker, clock: Clock) -> None:
    run(breaker, [True] * 40 + [False] * 60)
    for _ in range(7):
        with pytest.raises(Refused):
            succeed(breaker)
    rates = breaker.rates()
    assert (rates.calls, rates.failed, breaker.refused) == (100, 60, 7)
    clock.now_s += 5.001
    succeed(breaker)
    assert (breaker.rates().calls, breaker.refused) == (1, 7)


def test_each_change_of_state_is_one_line_in_the_log(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    breaker = make(clock)
    breaker.add_listener(StateLog())
    half_open(breaker, clock)
    run(breaker, [True] * 10)
    breaker.force(Forced.CLOSED)  # it is closed already
    breaker.force(Forced.OPEN)
    breaker.force(Forced.OPEN)
    assert [record.getMessage() for record in caplog.records] == [
        "circuit breaker test: closed → open",
        "circuit breaker test: open → half-open",
        "circuit breaker test: half-open → closed",
        "circuit breaker test: closed → open",
    ]


def test_listeners_are_called_for_every_event(clock: Clock) -> None:
    heard: Counter[str] = Counter()

    class Listener(pybreaker.CircuitBreakerListener):
        def failure(self, cb: pybreaker.CircuitBreaker, exc: BaseException) -> None:
            heard["failure"] += 1

        def success(self, cb: pybreaker.CircuitBreaker) -> None:
            heard["success"] += 1

        def state_change(
            self,
            cb: pybreaker.CircuitBreaker,
            old_state: pybreaker.CircuitBreakerState | None,
            new_state: pybreaker.CircuitBreakerState,
        ) -> None:
            heard[f"{old_state.name if old_state else '?'} → {new_state.name}"] += 1

    breaker = make(clock)
    breaker.add_listener(Listener())
    half_open(breaker, clock)
    run(breaker, [True] * 10)
    assert heard == {
        "failure": 100, "success": 10, "closed → open": 1, "open → half-open": 1, "half-open → closed": 1
    }  # fmt: skip


def test_calls_do_not_wait_for_each_other(breaker: CircuitBreaker) -> None:
    together = threading.Barrier(16, timeout=20)
    with ThreadPoolExecutor(16) as executor:
        assert sorted(executor.map(lambda _: breaker.call(together.wait), range(16))) == list(range(16))


def test_stock_pybreakers_calls_do_wait_for_each_other() -> None:
    # The negative control: one caller at a time, so the two never meet.
    stock = pybreaker.CircuitBreaker(throw_new_error_on_trip=False)
    together = threading.Barrier(2, timeout=0.5)
    with ThreadPoolExecutor(2) as executor:
        both = [executor.submit(stock.call, together.wait) for _ in range(2)]
        assert {type(one.exception()) for one in both} == {threading.BrokenBarrierError}


def test_32_threads_never_get_more_than_ten_calls_admitted_when_half_open(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    half_open(breaker, clock)
    inside, peak, lock, leave = 0, 0, threading.Lock(), threading.Event()

    def guarded() -> None:
        nonlocal inside, peak
        with lock:
            inside += 1
            peak = max(peak, inside)
        assert leave.wait(20)

    def call(_: int) -> bool:
        try:
            breaker.call(guarded)
        except Refused:
            if not leave.is_set():
                refused.release()
            return False
        return True

    refused = threading.Semaphore(0)
    with ThreadPoolExecutor(32) as executor:
        calls = [executor.submit(call, number) for number in range(32)]
        for _ in range(22):  # all but ten are refused while those ten are inside
            assert refused.acquire(timeout=20)
        leave.set()
        assert sum(one.result() for one in calls) == 10
    assert peak == 10
    assert breaker.current_state == CLOSED
