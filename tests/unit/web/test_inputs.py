"""What a client sends is checked before it is used: ids, bodies, keys and pages."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from couponapp.errors import InvalidRequest
from couponapp.web.inputs import DEFAULT_PAGE, MAX_ID, encode_cursor, idempotency_key, page, parse_id, parse_object

APP = Flask("inputs")
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcㄱ", max_size=3), inner, max_size=4),
    max_leaves=10,
)


def refusal(raw: bytes) -> str:
    with pytest.raises(InvalidRequest) as error:
        parse_object(raw)
    return str(error.value)


@given(st.integers(1, MAX_ID))
def test_an_id_has_one_spelling(number: int) -> None:
    assert parse_id(str(number)) == number
    for other in (f"0{number}", f"+{number}", f" {number}", f"{number}\n", f"{number}.0", f"{number:_}__"):
        assert parse_id(other) is None, other


@pytest.mark.parametrize("text", ["0", "", "-1", str(MAX_ID + 1), "9" * 400, "１", "1１", "1١", "1²"])
def test_what_no_row_can_have_is_no_id(text: str) -> None:
    assert parse_id(text) is None


@given(st.dictionaries(st.text("abc", max_size=3), JSON, max_size=4))
def test_every_json_object_is_read_as_it_was_written(value: dict[str, Any]) -> None:
    for ascii_only in (True, False):
        assert parse_object(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b'{"a": 1, "a": 1}', "twice"),
        (b'{"b": [{"a": 1, "a": 2}]}', "twice"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": [-Infinity]}', "-Infinity"),
        (b'{"a": "\xff"}', "UTF-8"),
        (b"[1]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'{"a": 1} x', "not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (rb'{"a": "\u0000"}', "NUL"),
        (rb'{"a": {"\ud800": [1]}}', "surrogate"),
        (rb'{"a": [["\udfff"]]}', "surrogate"),
    ],
)
def test_what_is_no_object_that_postgresql_could_store_is_refused_with_the_reason(raw: bytes, said: str) -> None:
    assert said in refusal(raw)


def test_a_surrogate_pair_is_one_character_and_accepted() -> None:
    assert parse_object(rb'{"a": "\ud83c\udf81"}') == {"a": "\N{WRAPPED PRESENT}"}


@pytest.mark.parametrize(
    ("key", "accepted"), [("k", True), ("~" * 255, True), ("!", True), ("", False), ("~" * 256, False)]
)
def test_a_key_has_1_to_255_visible_ascii_characters(key: str, accepted: bool) -> None:
    environ = {"HTTP_IDEMPOTENCY_KEY": key}
    if accepted:
        assert idempotency_key(environ) == key
    else:
        with pytest.raises(InvalidRequest, match="Idempotency-Key"):
            idempotency_key(environ)


def test_blanks_and_line_breaks_are_no_part_of_a_key_and_no_header_is_no_key() -> None:
    for key in ("a b", "a\n", "\ta", "a\x7f", "é"):
        with pytest.raises(InvalidRequest):
            idempotency_key({"HTTP_IDEMPOTENCY_KEY": key})
    assert idempotency_key({}) is None


def asked(query: str) -> tuple[int, int | None]:
    with APP.test_request_context(f"/?{query}"):
        return page()


@given(st.integers(1, MAX_ID))
def test_a_cursor_leads_on_from_the_id_that_it_was_made_of(before_id: int) -> None:
    cursor = encode_cursor(before_id)
    assert asked(f"cursor={cursor}&limit=7") == (7, before_id)
    assert "=" not in cursor


def test_without_parameters_a_page_has_its_default_size_and_is_the_first() -> None:
    assert asked("") == (DEFAULT_PAGE, None)


@pytest.mark.parametrize("limit", ["0", "101", "", "-1", "1.5", "１", "0100"])
def test_a_limit_that_is_none_is_named(limit: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^limit"):
        asked(f"limit={limit}")


# The first five are base64 of «i0», «i01», «i», «x5» and of no text.
CURSORS = ["aTA", "aTAx", "aQ", "eDU", "_w", "", "5", encode_cursor(MAX_ID + 1), "a" * 41, "aTE%3D", "%FF"]


@pytest.mark.parametrize("cursor", CURSORS)
def test_a_cursor_that_was_not_given_out_is_named(cursor: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^cursor"):
        asked(f"cursor={cursor}")
