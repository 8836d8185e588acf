"""What a response says about its attempt."""

from __future__ import annotations

import pytest

from couponapp.web.responses import RESPONSES
from loadtest.load.answered import COUPON, ISSUE, KNOWN, MINE, Answered


def answered(code: str, kind: str = ISSUE, shown: str | None = None) -> Answered:
    return Answered(kind, "kim", 7, 1.0, 1.5, code, shown)


@pytest.mark.parametrize("code", ["SERVICE_UNAVAILABLE", "INTERNAL_ERROR", "NO_ANSWER", "GAVE_UP", "HTTP_502", ""])
def test_an_attempt_without_a_clear_answer_may_have_issued(code: str) -> None:
    assert answered(code).is_unknown
    assert not answered(code, MINE).is_unknown  # a look-up issues nothing


def test_every_code_that_the_service_gives_to_an_attempt_is_either_clear_or_a_5xx() -> None:
    unclear = {code for code in RESPONSES if answered(code).is_unknown} - {"OK", "READY"}
    assert {RESPONSES[code].status // 100 for code in unclear} == {5}
    assert {*RESPONSES, "REPLAYED"} >= KNOWN


def test_a_holder_is_who_was_shown_an_issuance() -> None:
    assert [answered(code).shows_one for code in ("ISSUED", "REPLAYED", "ALREADY_ISSUED", "SOLD_OUT")] == [
        *(True, True, True, False),
    ]
    assert answered("OK", MINE, shown="K").shows_one
    assert not answered("OK", MINE).shows_one
    assert not answered("OK", COUPON).shows_one


def test_nothing_is_answered_before_it_was_sent() -> None:
    with pytest.raises(ValueError, match=r"sent at 2\.0 s"):
        Answered(ISSUE, "kim", 7, 2.0, 1.9, "ISSUED")
