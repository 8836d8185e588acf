"""Clients of Redis connect at their first use, and to usable addresses only."""

from __future__ import annotations

import pytest
from redis import RedisError
from redis.cluster import RedisCluster

from couponapp.errors import ConfigurationError
from couponapp.local.postgres import free_port
from couponapp.storage.redis import connect


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
