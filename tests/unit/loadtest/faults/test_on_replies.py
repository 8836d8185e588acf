"""The fault suite loses replies to work that has been done: three of ten, the same ones in each run."""

from __future__ import annotations

import pytest

from loadtest.faults.on_replies import LEAST, MOST, Lottery, begins_an_answer, ends_a_statement

# As PostgreSQL sends them: the end of a login, and of a statement that was committed.
LET_IN = b"R\0\0\0\x08\0\0\0\0S\0\0\0\x09a\0b\0\0Z\0\0\0\x05I"
DONE = b"C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I"
IN_TRANSACTION = b"C\0\0\0\x0aBEGIN\0Z\0\0\0\x05T"


@pytest.mark.parametrize(
    ("data", "ends"), [(DONE, True), (DONE[:-1], False), (LET_IN, False), (IN_TRANSACTION, False), (b"", False)]
)
def test_only_the_reply_to_a_committed_statement_may_be_lost(data: bytes, ends: bool) -> None:
    assert ends_a_statement(data) is ends


def test_a_web_response_is_lost_as_a_whole_by_its_beginning() -> None:
    assert begins_an_answer(b"HTTP/1.1 201 CREATED\r\n")
    assert not begins_an_answer(b'{"success": true}')


def test_three_of_ten_are_lost_and_the_same_ones_in_each_run() -> None:
    lottery, again = Lottery(ends_a_statement), Lottery(ends_a_statement)
    lost = [lottery.loses(DONE) for _ in range(1000)]
    assert LEAST < sum(lost) / 1000 < MOST
    assert lottery.share == sum(lost) / 1000
    assert lost == [again.loses(DONE) for _ in range(1000)]


def test_other_data_is_never_lost_and_not_counted() -> None:
    lottery = Lottery(ends_a_statement)
    assert not any(lottery.loses(LET_IN) for _ in range(100))
    assert lottery.share == 0
