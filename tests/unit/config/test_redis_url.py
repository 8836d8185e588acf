"""Addresses of Redis that name several servers."""

from __future__ import annotations

import pytest

from couponapp.config.redis_url import Credentials, Group, parse

LOGIN = Credentials("app", "p@ss/1")


@pytest.mark.parametrize(
    ("url", "group"),
    [
        ("redis+sentinel://one:26379/coupons", Group((("one", 26379),), Credentials(), "coupons")),
        ("redis+sentinel://one:1,two:2/coupons/", Group((("one", 1), ("two", 2)), Credentials(), "coupons")),
        (
            "redis+sentinel://one:1, 10.0.0.2:2/a.b-c_d/3",
            Group((("one", 1), ("10.0.0.2", 2)), Credentials(), "a.b-c_d", 3),
        ),
        (
            "redis+sentinel://app:p%40ss%2F1@one:1/coupons",
            Group((("one", 1),), LOGIN, "coupons", sentinel_login=LOGIN),
        ),
        (
            "redis+sentinel://:pw@[::1]:1,[fe80::2]:2/coupons",
            Group((("::1", 1), ("fe80::2", 2)), Credentials("", "pw"), "coupons", sentinel_login=Credentials("", "pw")),
        ),
        (
            "redis+sentinel://app:p%40ss%2F1@one:1/coupons?sentinel_username=eye&sentinel_password=p%3F",
            Group((("one", 1),), LOGIN, "coupons", sentinel_login=Credentials("eye", "p?")),
        ),
        # The data have a password, the Sentinels none.
        (
            "redis+sentinel://:pw@one:1/coupons?sentinel_password=",
            Group((("one", 1),), Credentials("", "pw"), "coupons"),
        ),
        ("redis+cluster://one:1", Group((("one", 1),), Credentials())),
        ("redis+cluster://:pw@one:1,two:2/", Group((("one", 1), ("two", 2)), Credentials("", "pw"))),
    ],
)
def test_servers_credentials_service_and_database_are_parsed(url: str, group: Group) -> None:
    assert parse(url) == group


@pytest.mark.parametrize("url", ["redis://host/0", "rediss://:pw@host:1", "unix:///run/redis.sock"])
def test_an_address_of_one_server_is_not_parsed(url: str) -> None:
    assert parse(url) is None


@pytest.mark.parametrize("url", ["redis+sentinel://:hush@host:1", "redis+cluster://:hush@host", "redis+cluster://hush"])
def test_the_error_does_not_quote_the_address(url: str) -> None:
    with pytest.raises(ValueError, match="must look like") as error:
        parse(url)
    assert "hush" not in str(error.value)
