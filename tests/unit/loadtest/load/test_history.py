"""The history checker accepts every run of a correct service, and reports what cannot have happened."""

from __future__ import annotations

from dataclasses import replace

import pytest

from loadtest.load.history import NEVER, Answered, Operated, check
from tests.support.simulated_run import Run, simulated

SEEDS = range(240)
COUPON = 7


@pytest.mark.parametrize("part", range(6))
def test_every_run_of_a_correct_service_is_explained(part: int) -> None:
    for seed in SEEDS[part::6]:
        run = simulated(seed)
        assert run.contradictions() == [], f"seed {seed}"
        # The same without the times of the rows, which only make the checker stricter.
        assert replace(run, issued_at_s={}).contradictions() == [], f"seed {seed}"


def test_the_simulated_runs_contain_every_code_and_a_restock() -> None:
    codes = {one.code for seed in SEEDS for one in simulated(seed).answers}
    assert codes == {
        "ISSUED", "REPLAYED", "ALREADY_ISSUED", "SOLD_OUT", "NOT_OPEN", "PAUSED", "CLOSED",
        "TOO_MANY_REQUESTS", "SERVICE_UNAVAILABLE", "NO_ANSWER", "OK",
    }  # fmt: skip
    assert any(one.what == "restock" for seed in SEEDS for one in simulated(seed).operated)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ("more than there are", "hold one at the end, of"),
        ("two for one user", "another attempt had got ISSUED"),
        ("holders get SOLD_OUT", "had been shown an issuance by"),
        ("another code shown", "but at the end this user holds"),
        ("pause ignored", "got ISSUED"),
        ("sold out too early", "not all were gone"),
        ("answers before it is recorded", "but at the end this user holds none"),
        ("restock not held back", "had been shown an issuance by"),
        ("memory too old", "not all were gone"),
    ],
)
def test_a_wrong_service_is_detected(wrong: str, expected: str) -> None:
    found = [line for seed in range(100) for line in simulated(seed, wrong=wrong).contradictions()]
    assert any(expected in line for line in found), found[:5]


def answered(
    user: str, sent_s: float, answered_s: float, code: str, shown: str | None = None, *, key: str | None = None
) -> Answered:
    return Answered("issue", user, COUPON, sent_s, answered_s, code, shown, key)


KIM_HAS_ONE = answered("kim", 1.0, 1.1, "ISSUED", "K")
OWNERS = {"kim": "K"}
PAUSED = [Operated("pause", 2.0, 2.1), Operated("resume", 4.0, 4.1)]


# Of one piece, which kim gets from 1.0 to 1.1 s.
@pytest.mark.parametrize(
    "more",
    [
        answered("lee", 1.0, 1.05, "SOLD_OUT"),  # kim's may have gone at 1.01
        answered("lee", 0.2, 9.0, "SOLD_OUT"),
        answered("kim", 0.9, 1.02, "ALREADY_ISSUED", "K"),  # a second attempt at the same time
        answered("kim", 0.5, 1.05, "NO_ANSWER"),
        answered("kim", 5.0, 5.1, "TOO_MANY_REQUESTS"),
        answered("lee", 5.0, 5.1, "HTTP_502"),
        Answered("mine", "kim", COUPON, 1.0, 1.1, "OK"),
        Answered("mine", "kim", COUPON, 1.2, 1.3, "OK", "K"),
        Answered("coupon", "lee", COUPON, 1.9, 1.95, "OK", remaining=1),  # a second old
        Answered("coupon", "lee", COUPON, 1.0, 1.05, "OK", remaining=0),
        Answered("coupon", "lee", COUPON, 9.0, 9.1, "STALE", remaining=1),
        Answered("page", "lee", COUPON, 9.0, 9.1, "any code"),
    ],
)
def test_what_some_order_explains_is_accepted(more: Answered) -> None:
    assert check([KIM_HAS_ONE, more], OWNERS, 1) == []


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (answered("lee", 0.8, 0.95, "SOLD_OUT"), "perhaps 0 of 1 pieces were gone"),
        (answered("kim", 1.2, 1.3, "SOLD_OUT"), "had been shown an issuance by 1.100 s"),
        (answered("kim", 1.2, 1.3, "NOT_OPEN"), "had been shown an issuance by 1.100 s"),
        (answered("kim", 0.1, 0.9, "ALREADY_ISSUED", "K"), "nothing can have issued it before 1.000 s"),
        (answered("kim", 1.2, 1.3, "ALREADY_ISSUED", "L"), "at the end this user holds K"),
        (answered("kim", 1.2, 1.3, "ALREADY_ISSUED"), "no code of an issuance"),
        (answered("kim", 1.2, 1.3, "ISSUED", "K"), "another attempt had got ISSUED"),
        (answered("kim", 1.2, 1.3, "REPLAYED", "K", key="other"), "no attempt with that key"),
        (answered("lee", 1.2, 1.3, "ISSUED", "L"), "at the end this user holds none"),
        (answered("lee", 1.2, 1.3, "ISSUED", "L"), "than the 1 pieces"),
        (answered("lee", 1.2, 1.3, "PAUSED"), "it was not paused"),
        (answered("lee", 1.2, 1.3, "CLOSED"), "it was not closed"),
        (answered("lee", 1.2, 1.3, "COUPON_NOT_FOUND"), "there is such a coupon"),
        (answered("lee", 1.2, 1.3, "IDEMPOTENCY_KEY_REUSED"), "there was no key"),
        (Answered("mine", "kim", COUPON, 1.2, 1.3, "OK"), "had been shown an issuance by 1.100 s"),
        (Answered("mine", "kim", COUPON, 0.1, 0.9, "OK", "K"), "nothing can have issued it"),
        (Answered("coupon", "lee", COUPON, 2.2, 2.3, "OK", remaining=1), "not from 0 to 0"),
        (Answered("coupon", "lee", COUPON, 0.2, 0.3, "OK", remaining=0), "not from 1 to 1"),
    ],
)
def test_what_no_order_explains_is_reported(more: Answered, expected: str) -> None:
    found = check([KIM_HAS_ONE, more], OWNERS, 1)
    assert any(expected in line for line in found), found


def test_an_attempt_without_a_response_may_have_issued_even_after_the_client_disconnected() -> None:
    gone = answered("lee", 1.0, 1.1, "NO_ANSWER", key="k")
    replayed = answered("lee", 5.0, 5.1, "REPLAYED", "L", key="k")
    assert check([gone, replayed], {"lee": "L"}, 1) == []
    assert check([gone], {}, 1) == []
    assert check([gone, answered("kim", 0.1, 0.9, "SOLD_OUT")], {"lee": "L"}, 1) != []
    assert check([gone, answered("kim", 1.0, 1.01, "SOLD_OUT")], {"lee": "L"}, 1) == []


def test_a_refused_attempt_has_issued_nothing() -> None:
    for code in ("TOO_MANY_REQUESTS", "SOLD_OUT", "PAUSED", "UNAUTHENTICATED"):
        assert any("none of their attempts" in line for line in check([answered("lee", 1, 2, code)], {"lee": "L"}, 1))
    assert check([], {"lee": "L"}, 1, held_before={"lee"}) == []


def test_a_replay_under_the_key_of_another_attempt_is_reported() -> None:
    issued = replace(KIM_HAS_ONE, key="a")
    assert check([issued, answered("kim", 2, 3, "REPLAYED", "K", key="a")], OWNERS, 1) == []
    assert check([issued, answered("kim", 2, 3, "ALREADY_ISSUED", "K", key="b")], OWNERS, 1) == []
    assert check([issued, answered("kim", 2, 3, "REPLAYED", "K", key="b")], OWNERS, 1) != []
    assert check([issued, answered("kim", 2, 3, "ALREADY_ISSUED", "K", key="a")], OWNERS, 1) != []


def test_two_users_with_one_code_are_reported() -> None:
    found = check([KIM_HAS_ONE, answered("lee", 1, 2, "ISSUED", "K")], {"kim": "K", "lee": "K"}, 2)
    assert found == ["2 users hold the code K"]


@pytest.mark.parametrize(
    ("attempt", "explained"),
    [
        (answered("kim", 1.95, 2.05, "ISSUED", "K"), True),
        (answered("kim", 2.05, 5.0, "ISSUED", "K"), True),
        (answered("kim", 2.2, 3.9, "ISSUED", "K"), False),  # paused during all of it
        (answered("kim", 4.05, 4.06, "ISSUED", "K"), True),
        (answered("kim", 2.05, 2.07, "PAUSED"), True),
        (answered("kim", 5.0, 5.1, "PAUSED"), True),  # from a second ago
        (answered("kim", 5.2, 5.3, "PAUSED"), False),
        (answered("kim", 1.8, 1.9, "PAUSED"), False),
    ],
)
def test_a_pause_holds_between_its_two_ends(attempt: Answered, explained: bool) -> None:
    owners = OWNERS if attempt.code == "ISSUED" else {}
    assert (check([attempt], owners, 1, operated=PAUSED) == []) is explained


def test_a_holder_gets_paused_only_without_a_key() -> None:
    assert check([KIM_HAS_ONE, answered("kim", 2.2, 2.3, "PAUSED")], OWNERS, 1, operated=PAUSED) == []
    keyed = answered("kim", 2.2, 2.3, "PAUSED", key="k")
    assert check([KIM_HAS_ONE, keyed], OWNERS, 1, operated=PAUSED) != []


def test_sold_out_is_accepted_for_at_most_a_second_after_a_restock() -> None:
    restock = [Operated("restock", 2.0, 2.1, 5)]
    for sent_s, explained in ((1.5, True), (3.0, True), (3.2, False)):
        late = answered("lee", sent_s, sent_s + 0.1, "SOLD_OUT")
        assert (check([KIM_HAS_ONE, late], OWNERS, 1, operated=restock) == []) is explained, sent_s


def test_more_issuances_than_pieces_before_a_restock_are_reported() -> None:
    both = [KIM_HAS_ONE, answered("lee", 1.0, 1.9, "ISSUED", "L")]
    owners = {**OWNERS, "lee": "L"}
    assert check(both, owners, 1, operated=[Operated("restock", 1.8, 2.1, 5)]) == []
    assert check(both, owners, 1, operated=[Operated("restock", 2.0, 2.1, 5)]) != []


def test_a_restock_with_an_unknown_result_may_have_happened_or_not() -> None:
    perhaps = [Operated("restock", 2.0, NEVER, 1)]
    lee = answered("lee", 3.0, 3.1, "ISSUED", "L")
    assert check([KIM_HAS_ONE, lee], {**OWNERS, "lee": "L"}, 1, operated=perhaps) == []
    assert check([KIM_HAS_ONE, answered("lee", 9.0, 9.1, "SOLD_OUT")], OWNERS, 1, operated=perhaps) == []


def test_the_window_is_kept() -> None:
    def kept(one: Answered, owners: dict[str, str]) -> bool:
        return check([one], owners, 1, opens_s=10.0, closes_s=20.0, clock_error_s=0.1) == []

    for sent_s, code, explained in (
        (9.5, "NOT_OPEN", True),
        (10.2, "NOT_OPEN", False),
        (9.5, "CLOSED", False),
        (20.0, "CLOSED", True),
    ):
        assert kept(answered("lee", sent_s, sent_s + 0.01, code), {}) is explained, code
    for sent_s, explained in ((9.5, False), (9.95, True), (20.05, True), (20.2, False)):
        issued = answered("kim", sent_s, sent_s + 0.01, "ISSUED", "K")
        assert kept(issued, OWNERS) is explained, sent_s


def test_after_a_close_it_stays_closed() -> None:
    close = [Operated("close", 2.0, 2.1)]
    assert check([KIM_HAS_ONE, answered("lee", 9.0, 9.1, "CLOSED")], OWNERS, 2, operated=close) == []
    assert check([answered("kim", 3.0, 3.1, "ISSUED", "K")], OWNERS, 2, operated=close) != []
    assert check([KIM_HAS_ONE, answered("lee", 3.2, 3.3, "SOLD_OUT")], OWNERS, 1, operated=close) != []


def test_the_time_of_the_row_must_lie_within_the_attempt() -> None:
    assert check([KIM_HAS_ONE], OWNERS, 1, issued_at_s={"kim": 1.05}) == []
    assert "before any attempt" in check([KIM_HAS_ONE], OWNERS, 1, issued_at_s={"kim": 0.5})[0]
    assert "had been shown it by" in check([KIM_HAS_ONE], OWNERS, 1, issued_at_s={"kim": 1.5})[0]
    gone = answered("kim", 1.0, 1.1, "NO_ANSWER")
    assert check([gone], OWNERS, 1, issued_at_s={"kim": 3.0}, operated=PAUSED) == []  # it may have seen the resume


def test_a_key_of_another_coupon_explains_its_refusal() -> None:
    other = Answered("issue", "kim", 8, 0.0, 0.5, "ISSUED", "O", "k")
    refused = answered("kim", 1.0, 1.1, "IDEMPOTENCY_KEY_REUSED", key="k")
    assert check([other, refused], {}, 1, coupon_id=COUPON) == []
    assert check([replace(other, key="j"), refused], {}, 1, coupon_id=COUPON) != []
    with pytest.raises(ValueError, match="several coupons"):
        check([other, refused], {}, 1)


def test_a_response_before_its_request_is_rejected() -> None:
    with pytest.raises(ValueError, match="sent at"):
        answered("kim", 2.0, 1.0, "ISSUED", "K")


def test_one_altered_answer_in_a_large_run_is_found() -> None:
    run = next(one for one in map(simulated, SEEDS) if len(one.owners) >= 20 and len(one.answers) > 200)
    issued = next(one for one in run.answers if one.code == "ISSUED")
    for changed in (
        run.altered(lambda one: one is issued, issuance_code="other"),
        run.altered(lambda one: one is issued, code="SOLD_OUT", issuance_code=None),
        run.altered(lambda one: one is issued, code="TOO_MANY_REQUESTS", issuance_code=None),
        run.altered(lambda one: one.code == "SOLD_OUT", code="COUPON_NOT_FOUND"),
        _without_a_row(run, issued.user),
    ):
        assert changed.contradictions() != []


def _without_a_row(run: Run, user: str) -> Run:
    return replace(run, owners={name: code for name, code in run.owners.items() if name != user})
