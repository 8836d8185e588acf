"""What the parsers of settings make of good values. The bad ones are in test_settings.py."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from limits import parse as parse_rate
from psycopg.conninfo import conninfo_to_dict

from couponapp.config import parsers

WORDS = st.text("abcxyz019-", min_size=1, max_size=12).filter(lambda word: word[0] != "-" and word[-1] != "-")


@given(st.integers(0, 10**10), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_whole_number_is_accepted_from_its_lowest_to_its_highest_value(value: int, one: int, other: int) -> None:
    parse = parsers.Integer(min(one, other), max(one, other))
    if parse.low <= value <= parse.high:
        assert parse(str(value)) == value
    else:
        with pytest.raises(ValueError, match=f"from {parse.low} to {parse.high}"):
            parse(str(value))


def test_a_rate_that_is_accepted_is_one_limit_that_lets_somebody_pass() -> None:
    for text in ("5/minute", "1 per 10 seconds", "30000/minute"):
        assert parse_rate(parsers.rate(text)).amount >= 1


def test_hosts_are_compared_without_their_case_and_blanks() -> None:
    assert parsers.hosts(" Shop.Example ,.SHOP.example,[2001:DB8::1],") == (
        "shop.example",
        ".shop.example",
        "[2001:db8::1]",
    )


def test_channels_keep_their_order_and_lose_their_blanks() -> None:
    assert parsers.channels("webhook, file") == ("webhook", "file")


def test_webhook_secrets_keep_their_order_so_that_the_newest_signs_first() -> None:
    newest, oldest = "whsec_" + 8 * "AAAA", "whsec_" + 8 * "BBBB"
    assert parsers.webhook_secrets(f"{newest}  {oldest}\n") == (newest, oldest)


@pytest.mark.parametrize(
    ("size", "accepted"), [(23, False), (24, True), (25, True), (26, True), (64, True), (66, False)]
)
def test_a_webhook_secret_has_24_to_64_bytes(size: int, accepted: bool) -> None:
    text = "whsec_" + base64.b64encode(bytes(size)).decode()
    if accepted:
        assert parsers.webhook_secrets(text) == (text,)
    else:
        with pytest.raises(ValueError, match="24 to 64 bytes"):
            parsers.webhook_secrets(text)


def test_a_secret_is_measured_in_bytes_and_not_in_characters() -> None:
    assert parsers.secret("가" * 11)  # 33 bytes
    with pytest.raises(ValueError, match="32 bytes"):
        parsers.secret("가" * 10)


def test_a_user_id_may_be_a_part_of_an_address_or_all_of_it() -> None:
    for text in ("{user_id}", "{user_id}@shop.example", "coupons+{user_id}@shop.example"):
        assert parsers.email_of_user(text) == text


@given(WORDS, WORDS, st.lists(st.tuples(WORDS, st.integers(1, 65_535)), min_size=1, max_size=3))
def test_the_servers_that_are_accepted_are_those_that_libpq_connects_to(
    user: str, database: str, servers: list[tuple[str, int]]
) -> None:
    several = "?target_session_attrs=read-write" if len(servers) > 1 else ""
    url = f"postgresql://{user}:p%40ss@{','.join(f'{host}:{port}' for host, port in servers)}/{database}{several}"
    connects = conninfo_to_dict(parsers.postgresql_url(url))
    assert (connects["user"], connects["password"], connects["dbname"]) == (user, "p@ss", database)
    assert str(connects["host"]).split(",") == [host for host, _ in servers]
    assert str(connects["port"]).split(",") == [str(port) for _, port in servers]


def test_of_a_query_that_repeats_itself_the_last_value_counts_as_it_does_for_libpq() -> None:
    url = "postgresql://one,two/db?target_session_attrs={}&target_session_attrs={}"
    accepted = parsers.postgresql_url(url.format("any", "read-write"))
    assert conninfo_to_dict(accepted)["target_session_attrs"] == "read-write"
    with pytest.raises(ValueError, match="several servers"):
        parsers.postgresql_url(url.format("read-write", "any"))
