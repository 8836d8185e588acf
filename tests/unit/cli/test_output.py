"""What the commands share: times, tables, JSON and one-line errors."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import click
import pytest

from couponapp.cli.output import operators_command, parse_moment, parse_span_s, print_json, print_rows
from couponapp.errors import CouponNotFound, InvalidRequest

ROWS = [
    {"id": 1, "name": "치킨", "left": 3, "closed_at": None},
    {"id": 20, "name": "pizza", "left": 0, "closed_at": datetime(2026, 11, 23, 0, 0, 0, 999_999, UTC)},
]


@pytest.fixture(autouse=True)
def in_seoul(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUPON_TIME_ZONE", "Asia/Seoul")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("10m", 600),
        ("1h", 3_600),
        ("7d", 604_800),
        ("0s", 0),
        *((text, None) for text in ("", "10", "m", "-1m", "+1m", "1.5h", "1w", "１m", "1m ", "9999999d", "1H")),
    ],
)
def test_a_span_is_a_whole_number_and_a_unit(text: str, seconds: int | None) -> None:
    assert parse_span_s(text) == seconds


def test_a_time_is_now_or_an_offset_from_it_or_a_moment() -> None:
    assert parse_moment("opens-at", "now") == 0.0
    assert parse_moment("opens-at", "+10m") == 600.0
    moment = datetime(2026, 11, 23, 0, 0, tzinfo=UTC)
    # Without an offset of its own it is in the configured zone.
    assert parse_moment("opens-at", "2026-11-23T09:00") == moment
    assert parse_moment("opens-at", "2026-11-23T00:00Z") == moment


def test_what_is_no_time_is_refused_with_the_name_of_the_option() -> None:
    for text in ("", "+", "10m", "-10m", "tomorrow", "2026-13-01"):
        with pytest.raises(InvalidRequest, match=r"^opens-at: .*" + repr(text).replace("+", r"\+")):
            parse_moment("opens-at", text)


def test_columns_are_aligned_also_behind_korean_letters_which_are_twice_as_wide(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_rows(ROWS, json_output=False, empty="none")
    assert capsys.readouterr().out.splitlines() == [
        "id  name   left  closed_at",
        "1   치킨   3",
        "20  pizza  0     2026-11-23T09:00:00+09:00",
    ]


def test_rows_as_json_are_a_list_and_a_single_one_is_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(ROWS, json_output=True, empty="none")
    listed = json.loads(capsys.readouterr().out)
    assert [row["closed_at"] for row in listed] == [None, "2026-11-23T09:00:00+09:00"]
    print_rows(ROWS[:1], json_output=True, empty="none", single=True)
    assert json.loads(capsys.readouterr().out) == listed[0]


def test_no_rows_are_a_sentence_for_a_person_and_an_empty_list_for_a_program(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_rows([], json_output=False, empty="no coupons")
    print_rows([], json_output=True, empty="no coupons")
    assert capsys.readouterr().out == "no coupons\n[]\n"


def test_korean_is_readable_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"name": "치킨"})
    assert "치킨" in capsys.readouterr().out


def test_an_error_of_ours_is_one_line_and_a_bug_is_not_hidden() -> None:
    @operators_command
    def fails(error: Exception, json_output: bool) -> None:
        raise error

    with pytest.raises(click.ClickException, match="there is no coupon 7"):
        fails(CouponNotFound("there is no coupon 7"), json_output=False)
    with pytest.raises(ZeroDivisionError):
        fails(ZeroDivisionError(), json_output=False)
