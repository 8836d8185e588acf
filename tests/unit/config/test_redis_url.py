"""Addresses of Redis that name several servers."""

from __future__ import annotations

import pytest
from redis import RedisError
from redis.cluster import RedisCluster

from couponapp.config.redis_url import Credentials, Group, parse
from couponapp.errors import ConfigurationError
from couponapp.local.postgres import free_port
from couponapp.storage.redis import connect

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


@pytest.mark.parametrize(
    "url",
    [
        "redis://host/0?no_such_argument=1",
        "redis://host/0?db=three",
        "redis://host/0?protocol=9",
        "redis+sentinel://host:1",
        "redis+cluster://host",
        "memcached://host",
    ],
)
def test_an_address_that_cannot_be_used_is_refused_before_anything_connects(url: str) -> None:
    with pytest.raises(ConfigurationError):
        connect(url, timeout_s=5)


def test_making_a_client_connects_nowhere() -> None:
    port = free_port()
    for url in (
        f"redis://127.0.0.1:{port}",
        f"redis+sentinel://127.0.0.1:{port}/x",
        f"redis+cluster://127.0.0.1:{port}",
    ):
        with pytest.raises(RedisError):
            connect(url, timeout_s=5).ping()
    # The library's own wants its servers at once, and with an error that is none of Redis's.
    with pytest.raises(Exception, match="cannot be connected") as error:
        RedisCluster(host="127.0.0.1", port=port)
    assert not isinstance(error.value, RedisError)
