"""The circuit breaker against a plain reference, over generated sequences of outcomes and times."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from couponapp.guards import circuit_breaker as guards
from couponapp.guards.circuit_breaker import Rules
from tests.support.breaker_model import TICK_S, Step, disagreement
from tests.support.examples import examples
from tests.support.mutants import mutated

# The same sequences in every run.
FIXED: dict[str, Any] = {"derandomize": True, "database": None, "deadline": None}

# Small, so that a sequence gets to all states; the real numbers are in test_breaker.py.
RULES = st.builds(
    Rules,
    window=st.integers(1, 5),
    failure_rate=st.sampled_from([20, 33.3, 50, 100]),
    min_calls=st.integers(1, 7),
    open_s=st.sampled_from([TICK_S, 2 * TICK_S]),
    half_open_calls=st.integers(1, 4),
    slow_call_s=st.sampled_from([0.0, TICK_S]),
    slow_rate=st.sampled_from([25, 50, 100]),
    permit_s=st.sampled_from([TICK_S, 3 * TICK_S]),
)
# One draw a step is quickest; what stands here more often happens more often.
STEPS = st.lists(
    st.sampled_from(
        [Step("call ok"), Step("call fails"), Step("call ignored"), Step("take")] * 5
        + [Step("call fails"), Step("take")] * 5
        + [Step("time", ticks) for ticks in (1, 1, 2, 2, 3, 4)] * 2
        + [Step(what, which) for what in ("end ok", "end ok", "end fails", "end ignored") for which in range(4)]
        + [Step("begin", which) for which in range(4)] * 2
        + [Step(f"force {forced}") for forced in ("auto", "auto", "open", "closed")]
    ),
    min_size=20,
    max_size=60,
)


@pytest.mark.generated
@settings(max_examples=examples(400, full=4000), **FIXED)
@given(RULES, STEPS)
def test_it_behaves_as_the_reference_does(rules: Rules, steps: list[Step]) -> None:
    assert disagreement(guards, rules, steps) is None


WRONG = {
    "opens above the failure rate, not at it": ("rates.failed >= self", "rates.failed > self"),
    "opens above the slow rate, not at it": ("rates.slow >= self", "rates.slow > self"),
    "takes a call for slow that takes exactly as long as it may": (
        "0 < self.rules.slow_call_s < call",
        "0 < self.rules.slow_call_s <= call",
    ),
    "forgets no result when the window moves on": (
        "if len(self._results) == self._results.maxlen:",
        "if not self._results.maxlen:",
    ),
    "waits for more calls than the window holds": (
        "min(self.rules.min_calls, self.rules.window)",
        "self.rules.min_calls",
    ),
    "lets failures decide only": ("self._decide(half_open)\n", "failed and self._decide(half_open)\n"),
    "counts what speaks against nobody as a success": ("failed=failed, counts=failed", "failed=failed, counts=True"),
    "is no longer open at the end of its time": ("<= self.rules.open_s", "< self.rules.open_s"),
    "lets any number in when half-open": (
        "if len(self._permits) + self._window.rates().calls >= self.rules.half_open_calls:",
        "if self.rules.half_open_calls < 0:",
    ),
    "lets one too many in when half-open": (
        "calls >= self.rules.half_open_calls",
        "calls > self.rules.half_open_calls",
    ),
    "forgets the results when it counts permits": ("+ self._window.rates().calls >=", ">="),
    "decides half-open at the first result": (
        "enough = self.rules.half_open_calls if half_open",
        "enough = 1 if half_open",
    ),
    "keeps the permit of a call that counts as nothing": (
        "self._permits.discard(call)",
        "self._permits.discard(call if counts else None)",
    ),
    "never takes a permit back": ("> self.rules.permit_s", "> 1e9 + self.rules.permit_s"),
    "takes a permit back at its bound": ("> self.rules.permit_s", ">= self.rules.permit_s"),
    "counts the result of a permit that was taken back": ("if half_open and self._is_overdue(call):", "if False:"),
    "counts late results of an earlier state": ("if call.state_version != self._state_version:", "if False:"),
    "takes the wait before the call for slowness": (
        "        self._began_s = self._clock()\n\n    def duration_s",
        "\n    def duration_s",
    ),
    "lets the permit begin anew with the call": (
        "        self._began_s = self._clock()\n\n    def duration_s",
        "        self.admitted_s = self._began_s = self._clock()\n\n    def duration_s",
    ),
    "begins half-open with the old results": (
        "            self._window = _Window(self.rules.half_open_calls)\n",
        "",
    ),
    "closes with the old results": (
        "            self._window = _Window(self.rules.window)\n            if self.current_state",
        "            if self.current_state",
    ),
    "trips although it is forced closed": (" or self._forced is not Forced.NO:", ":"),
    "lets calls in although it is forced open": ("return self._forced is Forced.OPEN or self", "return self"),
    "begins anew whenever it is told the same": ("if forced is self._forced:", "if False:"),
    "does not count refusals": ("self._refused += 1", "self._refused += 0"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_breaker_is_caught(wrong: str) -> None:
    right, instead = WRONG[wrong]
    variant = mutated(guards, {right: instead})
    find(
        st.tuples(RULES, STEPS),
        lambda example: disagreement(variant, *example) is not None,
        settings=settings(max_examples=1000, phases=[Phase.generate], **FIXED),
    )
