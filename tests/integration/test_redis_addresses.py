"""Redis addresses: one server, Sentinels, a cluster. Every call ends soon, and finds the new master."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis, RedisError

from couponapp.storage.redis import HASH_TAG, connect
from tests.servers import wait_until
from tests.valkeys import (
    FAILOVER_TIMEOUT_S,
    Cluster,
    Server,
    Watched,
    cluster_of_valkeys,
    running_valkey,
    watched_valkeys,
)

# As the limiter has it.
TIMEOUT_S = 0.05
# What is allowed beyond the promise, on a machine that is busy with other things.
SLACK_S = 0.5
CROWD = 50
KEY = f"{HASH_TAG}:counter"


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Server]:
    with running_valkey(tmp_path) as server:
        yield server


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    with watched_valkeys(tmp_path) as watched:
        yield watched


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with cluster_of_valkeys(tmp_path) as cluster:
        yield cluster


def counting(client: Redis) -> Callable[[], int]:
    """A script call, as the limiter makes it."""
    script = client.register_script("return redis.call('INCR', KEYS[1])")
    return lambda: int(script([KEY]))


def seconds_of(call: Callable[[], object]) -> float:
    """How long a call takes that must fail in the library's own way."""
    began = time.monotonic()
    with pytest.raises(RedisError):
        call()
    return time.monotonic() - began


def works(call: Callable[[], object]) -> bool:
    try:
        call()
    except RedisError:
        return False
    return True


def test_one_server_counts(alone: Server) -> None:
    count = counting(connect(f"{alone.url}/3", timeout_s=2))
    assert [count(), count()] == [1, 2]


def test_the_master_behind_sentinels_counts(watched: Watched) -> None:
    count = counting(connect(watched.url(), timeout_s=2))
    assert [count(), count()] == [1, 2]


def test_a_cluster_counts(cluster: Cluster) -> None:
    count = counting(connect(cluster.url, timeout_s=2))
    assert [count(), count()] == [1, 2]


def test_after_a_failover_the_same_client_uses_the_new_master(watched: Watched) -> None:
    count = counting(connect(watched.url(), timeout_s=2))
    count()
    old = watched.master
    old.kill()
    assert not works(count)
    watched.wait_for_another_master(old)
    wait_until(lambda: works(count), timeout_s=FAILOVER_TIMEOUT_S, what="the same client counts again")


def test_after_a_failover_of_the_slots_owner_the_same_client_uses_the_new_one(cluster: Cluster) -> None:
    count = counting(connect(cluster.url, timeout_s=2))
    count()
    cluster.owner.kill()
    assert not works(count)
    wait_until(lambda: works(count), timeout_s=FAILOVER_TIMEOUT_S, what="the same client counts again")
