"""The circuit breaker under 32 threads, on one fake clock that all of them move."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from types import ModuleType
from typing import Any

import pybreaker
import pytest

from couponapp.errors import CircuitOpen
from couponapp.guards import circuit_breaker as guards
from couponapp.guards.circuit_breaker import Forced, Rules
from tests.support.breaker_model import Down, OurFault
from tests.support.clock import Clock
from tests.support.mutants import mutated

THREADS = 32
STATES = ("closed", "open", "half-open")
# Times are bad for so many calls that were let in, then good for as many. So it opens and finds
# back again and again, however the threads are scheduled.
SPELL = 50
CALLS = 40 * SPELL
MAX_TRIES = 50_000  # refusals included; ten times of what it takes
RULES = Rules(window=20, min_calls=10, open_s=1.0, half_open_calls=5, slow_call_s=2.0, slow_rate=100, permit_s=1e9)
BOUND_S = 60  # never reached, unless the threads wait for each other for ever


@pytest.fixture(autouse=True)
def _threads_take_turns_often() -> Iterator[None]:
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before_s)


class Storm:
    """32 threads that call, fail, are slow, give up and let the time pass, all at once."""

    def __init__(self, module: ModuleType, *, forces: bool = False) -> None:
        self._lock = threading.Lock()
        self.clock = Clock()
        self._broken = False
        self._forces = forces
        self._forced = module.Forced
        self.breaker: Any = module.CircuitBreaker(
            "storm",
            is_failure=lambda error: isinstance(error, Down),
            rules=RULES,
            clock=self.clock,
            listeners=[_Generations(self)],
        )
        self.half_open: set[int] = set()  # the generations of that state
        self.states: Counter[str] = Counter()
        self.inside: Counter[int] = Counter()
        self.most_inside: Counter[int] = Counter()
        self.done = self.refused = 0

    def run(self) -> None:
        """Let it blow, and see that nothing is broken."""
        start = threading.Barrier(THREADS, timeout=BOUND_S)
        with ThreadPoolExecutor(THREADS) as executor:
            threads = [executor.submit(self._thread, seed, start) for seed in range(THREADS)]
            assert not wait(threads, BOUND_S).not_done
        for thread in threads:
            thread.result()
        assert self.done >= CALLS
        assert min(self.states[state] for state in STATES) >= 5
        assert max(self.most_inside[state_version] for state_version in self.half_open) <= RULES.half_open_calls

    def _thread(self, seed: int, start: threading.Barrier) -> None:
        start.wait()
        try:
            self._calls(random.Random(seed))
        except BaseException:
            self._broken = True
            raise

    def _calls(self, chance: random.Random) -> None:
        while not self._broken and self.done < CALLS and self.done + self.refused < MAX_TRIES:
            if chance.random() < 0.1:
                with self._lock:
                    self.clock.now_s += 0.25
            forces = self._forces and chance.random() < 0.005
            if forces:
                self.breaker.force(chance.choice([self._forced.OPEN, self._forced.CLOSED]))
            refused = False
            try:
                self._call(chance)
            except CircuitOpen:
                refused = True
                time.sleep(0.0002)  # lets those work who are inside
            if forces:
                self.breaker.force(self._forced.NO)
            with self._lock:
                self.refused += refused
                self.done += not refused

    def _call(self, chance: random.Random) -> None:
        bad = self.done // SPELL % 2 == 0
        with suppress(Down, OurFault), self.breaker.calling() as call:
            with self._lock:
                self.inside[call.state_version] += 1
                self.most_inside[call.state_version] = max(
                    self.most_inside[call.state_version], self.inside[call.state_version]
                )
            time.sleep(0)
            call.begin()
            with self._lock:
                self.inside[call.state_version] -= 1
            if chance.random() < (0.8 if bad else 0.05):
                raise Down
            if chance.random() < 0.1:
                raise OurFault


class _Generations(pybreaker.CircuitBreakerListener):
    def __init__(self, storm: Storm) -> None:
        self._storm = storm

    def state_change(
        self,
        cb: Any,
        old_state: pybreaker.CircuitBreakerState | None,
        new_state: pybreaker.CircuitBreakerState,
    ) -> None:
        self._storm.states[new_state.name] += 1
        if new_state.name == pybreaker.STATE_HALF_OPEN:
            self._storm.half_open.add(cb._state_version)


@pytest.mark.parametrize("forces", [False, True])
def test_what_holds_for_one_thread_holds_for_32(forces: bool) -> None:
    storm = Storm(guards, forces=forces)
    storm.run()
    breaker = storm.breaker
    # Nobody is lost: all who were let in have left, and who was refused was counted.
    assert storm.refused == breaker.refused
    assert not +storm.inside
    assert not breaker._permits
    # The sums are those of the results.
    results = list(breaker._window._results)
    assert len(results) <= RULES.window
    sums = (sum(failed for failed, _ in results), sum(slow for _, slow in results))
    assert (breaker._window._failed, breaker._window._slow) == sums


def test_after_the_storm_it_recovers() -> None:
    storm = Storm(guards, forces=True)
    storm.run()
    storm.breaker.force(Forced.NO)
    for _ in range(2):  # in the worst case the first round is what opens it
        storm.clock.now_s += RULES.open_s + 0.25
        with suppress(CircuitOpen):
            for _ in range(RULES.window):
                storm.breaker.call(lambda: None)
    assert storm.breaker.current_state == "closed"


# A pause between looking for a free permit and taking it, as long as another thread likes.
PAUSE = {
    "                self._permits.add(call)\n": (
        "                time.sleep(0.0005)\n                self._permits.add(call)\n"
    )
}
NO_LOCK = {
    "def _admit(self) -> Call:\n        with self._lock:": (
        "def _admit(self) -> Call:\n        import contextlib\n        with contextlib.nullcontext():"
    )
}


def test_a_pause_in_the_middle_changes_nothing_and_without_the_lock_it_breaks() -> None:
    Storm(mutated(guards, PAUSE)).run()
    # Too many get in, or the set of permits changes under somebody's eyes, or it never finds back.
    with pytest.raises((AssertionError, RuntimeError)):
        Storm(mutated(guards, PAUSE | NO_LOCK)).run()
