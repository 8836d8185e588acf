"""Clients of one Redis, of Sentinels and of a cluster: every call ends soon, and finds the new master."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.crc import key_slot
from redis.retry import Retry

from couponapp.storage.redis import HASH_TAG, connect
from tests.support.servers import wait_until
from tests.support.valkeys import (
    FAILOVER_TIMEOUT_S,
    PASSWORD,
    SERVICE,
    Cluster,
    Server,
    Watched,
    cluster_of_valkeys,
    node_of,
    running_valkey,
    watched_valkeys,
)

# As the limiter has it.
TIMEOUT_S = 0.05
# A call must end after one of them, or two where a server must be found. This much is allowed on a
# machine that is busy with other things; the wrong variants take longer.
BOUND_S = 1.0
CROWD = 50
# Longer than all tests on the servers that they share, so that freezing one makes no failover.
PATIENCE_MS = 600_000
KEY = f"{HASH_TAG}:counter"
# Of a node that does not own the slot of our keys.
ELSEWHERE = next(key for key in "abcdefgh" if node_of(key) != node_of(HASH_TAG))
COUNT = "return redis.call('INCR', KEYS[1])"


@dataclass(frozen=True)
class Service:
    """An address, and what stands behind it.

    Attributes:
        holder: the server with the data.
        others: its replica, and those that tell where the data are.
    """

    url: str
    holder: Server
    others: Sequence[Server] = ()

    @property
    def all(self) -> list[Server]:
        """All servers."""
        return [self.holder, *self.others]


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Service]]:
    """One of each kind, shared by the tests that kill nothing."""
    with ExitStack() as stack:
        directory = tmp_path_factory.mktemp("valkeys")
        one = stack.enter_context(running_valkey(directory))
        watched = stack.enter_context(watched_valkeys(directory, patience_ms=PATIENCE_MS))
        cluster = stack.enter_context(cluster_of_valkeys(directory, patience_ms=PATIENCE_MS))
        yield {
            "one server": Service(one.url, one),
            "sentinel": Service(watched.url(), watched.servers[0], [watched.servers[1], *watched.sentinels]),
            "cluster": Service(cluster.url, cluster.owner, [*cluster.others, cluster.replica]),
        }


@pytest.fixture(params=["one server", "sentinel", "cluster"])
def service(request: pytest.FixtureRequest, services: dict[str, Service]) -> Service:
    """Each kind in turn."""
    return services[str(request.param)]


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    """A master that a test may kill."""
    with watched_valkeys(tmp_path) as watched:
        yield watched


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster whose nodes a test may kill."""
    with cluster_of_valkeys(tmp_path) as cluster:
        yield cluster


def counting(client: Redis | RedisCluster) -> Callable[[], int]:
    """A call as the limiter makes it."""
    script = client.register_script(COUNT)
    return lambda: int(script([KEY]))


def works(call: Callable[[], object]) -> bool:
    try:
        call()
    except RedisError:
        return False
    return True


def seconds_until_it_fails(call: Callable[[], object], *errors: type[Exception]) -> float:
    began = time.monotonic()
    with pytest.raises(errors or RedisError):
        call()
    return time.monotonic() - began


def slowest_of_a_crowd(call: Callable[[], object], *errors: type[Exception], size: int = CROWD) -> float:
    """Many calls at once, all of which must fail."""
    with ThreadPoolExecutor(size) as executor:
        return max(executor.map(lambda _: seconds_until_it_fails(call, *errors), range(size)))


# What an address means


def test_a_script_counts_over_several_calls_of_one_client(service: Service) -> None:
    count = counting(connect(service.url, timeout_s=5))
    first = count()
    assert [first + 1, first + 2] == [count(), count()]


def test_the_script_runs_on_the_server_that_has_the_data(service: Service) -> None:
    count = counting(connect(service.url, timeout_s=5))
    service.holder.ask("DEL", KEY)
    assert count() == 1
    assert service.holder.ask("GET", KEY) == "1"


def test_the_database_is_the_one_in_the_address(services: dict[str, Service]) -> None:
    for kind, url in (
        ("one server", f"{services['one server'].url}/3"),
        ("sentinel", services["sentinel"].url.removesuffix("0") + "3"),
    ):
        connect(url, timeout_s=5).set("where", "three")
        other = connect(services[kind].url, timeout_s=5)
        assert other.get("where") is None
        other.execute_command("SELECT", 0)  # type: ignore[no-untyped-call]
        assert connect(url, timeout_s=5).get("where") == b"three"


def test_a_unix_socket_is_an_address_too(tmp_path_factory: pytest.TempPathFactory) -> None:
    # A socket's path may have 107 bytes.
    directory = tmp_path_factory.mktemp("s")
    with running_valkey(directory, f"unixsocket {directory}/s"):
        assert counting(connect(f"unix://:{PASSWORD}@{directory}/s", timeout_s=5))() == 1


def test_sentinels_may_have_a_password_of_their_own(tmp_path: Path) -> None:
    with watched_valkeys(tmp_path, sentinel_password="other") as watched:
        assert counting(connect(watched.url(arguments="?sentinel_password=other"), timeout_s=5))() == 1
        assert not works(connect(watched.url(), timeout_s=5).ping)


def test_a_key_in_another_slot_is_refused_and_later_calls_work(services: dict[str, Service]) -> None:
    client = connect(services["cluster"].url, timeout_s=5)
    count = counting(client)
    before = count()
    with pytest.raises(RedisError):
        client.set(ELSEWHERE, "x")
    assert count() == before + 1


def test_after_a_call_that_was_broken_off_the_next_one_gets_its_own_answer(service: Service) -> None:
    class BrokenOff(BaseException):
        pass

    def break_off(*_: object) -> None:
        raise BrokenOff

    def when_it_waits(thread: int) -> None:
        wait_until(lambda: service.holder.ask("INFO", "clients")["blocked_clients"], timeout_s=10, what="it waits")
        signal.pthread_kill(thread, signal.SIGUSR1)

    client = connect(service.url, timeout_s=20)
    before = signal.signal(signal.SIGUSR1, break_off)
    try:
        with ThreadPoolExecutor(1) as executor:
            executor.submit(when_it_waits, threading.get_ident())
            with pytest.raises(BrokenOff):
                client.blpop([f"{HASH_TAG}:nothing"], timeout=2)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert client.echo("mine") == b"mine"


# Frozen


def test_a_call_on_an_open_connection_to_a_frozen_server_ends(service: Service) -> None:
    count = counting(connect(service.url, timeout_s=TIMEOUT_S))
    wait_until(lambda: works(count), timeout_s=10, what="a connection is open")
    with service.holder.frozen():
        assert seconds_until_it_fails(count) < BOUND_S


def test_calls_end_while_no_server_at_all_answers(service: Service) -> None:
    count = counting(connect(service.url, timeout_s=TIMEOUT_S))
    with ExitStack() as stack:
        for server in service.all:
            stack.enter_context(server.frozen())
        for _ in range(3):
            assert seconds_until_it_fails(count) < BOUND_S


def test_concurrent_calls_to_a_freezing_server_do_not_wait_for_each_other(service: Service) -> None:
    count = counting(connect(service.url, timeout_s=TIMEOUT_S))
    wait_until(lambda: works(count), timeout_s=10, what="a connection is open")
    with ExitStack() as stack:
        for server in service.all:
            stack.enter_context(server.frozen())
        assert slowest_of_a_crowd(count) < BOUND_S
    wait_until(lambda: works(count), timeout_s=10, what="the same client counts again")


def test_timeouts_in_an_address_have_no_effect(services: dict[str, Service]) -> None:
    one = services["one server"]
    arguments = "socket_timeout=30&socket_connect_timeout=30&retry_on_timeout=1"
    with one.holder.frozen():
        assert seconds_until_it_fails(connect(f"{one.url}/0?{arguments}", timeout_s=TIMEOUT_S).ping) < BOUND_S


def test_a_frozen_sentinel_does_not_block_the_others_and_is_queried_last_the_next_time(
    services: dict[str, Service],
) -> None:
    _, first, _ = services["sentinel"].others
    client = connect(services["sentinel"].url, timeout_s=6)
    with first.frozen():
        client.ping()
        client.connection_pool.disconnect()
        began = time.monotonic()
        client.ping()
        assert time.monotonic() - began < 3  # what each Sentinel is given


def test_concurrent_callers_share_one_search_for_the_master(services: dict[str, Service]) -> None:
    _, *sentinels = services["sentinel"].others
    client = connect(services["sentinel"].url, timeout_s=20)
    started: list[None] = []

    def ping() -> bool:
        started.append(None)
        return bool(client.ping())

    before = sum(map(connections_so_far, sentinels))
    with ThreadPoolExecutor(CROWD) as executor:
        with sentinels[0].frozen(), sentinels[1].frozen():
            pings = [executor.submit(ping) for _ in range(CROWD)]
            wait_until(lambda: len(started) == CROWD, timeout_s=10, what="all have begun")
        assert all(ping.result(30) for ping in pings)
    # Not exactly one: who begins after the answer asks again, and so does this test.
    assert sum(map(connections_so_far, sentinels)) - before < CROWD / 2


def connections_so_far(server: Server) -> int:
    return int(server.ask("INFO", "stats")["total_connections_received"])


def test_these_tests_catch_the_librarys_own_clients(services: dict[str, Service]) -> None:
    # The negative controls: time-outs of 50 ms, but tries that multiply them, or one lock for all.
    one, cluster = services["one server"], services["cluster"]
    waits = {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S}
    patient = Redis(host="127.0.0.1", port=one.holder.port, password=PASSWORD, **waits)  # type: ignore[arg-type]
    nodes = [ClusterNode("127.0.0.1", server.port) for server in cluster.all]  # type: ignore[no-untyped-call]
    queueing = RedisCluster(startup_nodes=nodes, password=PASSWORD, retry=Retry(NoBackoff(), 0), **waits)  # type: ignore[arg-type]
    count = counting(queueing)
    count()
    with one.holder.frozen():
        assert seconds_until_it_fails(patient.ping) > BOUND_S / 2
    with ExitStack() as stack:
        for server in cluster.all:
            stack.enter_context(server.frozen())
        assert slowest_of_a_crowd(count, Exception, size=10) > BOUND_S


# Failing over


def test_after_the_master_is_killed_the_same_client_uses_the_promoted_one(watched: Watched) -> None:
    count = counting(connect(watched.url(), timeout_s=2))
    count()
    old = watched.master
    old.kill()
    new = watched.wait_for_another_master(old)
    wait_until(lambda: works(count), timeout_s=FAILOVER_TIMEOUT_S, what="the same client counts again")
    counted = count()
    assert new.ask("GET", KEY) == str(counted)
    # The negative control: an address of one server.
    assert not works(connect(old.url, timeout_s=2).ping)


def test_a_master_that_continues_after_the_failover_is_not_used(watched: Watched) -> None:
    count = counting(connect(watched.url(), timeout_s=0.5))
    count()
    old = watched.master
    with old.frozen():
        new = watched.wait_for_another_master(old)
        wait_until(lambda: works(count), timeout_s=FAILOVER_TIMEOUT_S, what="the same client counts again")
    # It takes itself for the master until the Sentinels tell it otherwise, seconds later.
    counted = count()
    assert new.ask("GET", KEY) == str(counted)


def test_a_master_that_has_become_a_replica_is_not_used_although_the_connection_is_open(watched: Watched) -> None:
    count = counting(connect(watched.url(), timeout_s=2))
    count()
    old = watched.master
    watched.sentinels[0].ask("SENTINEL FAILOVER", SERVICE)
    new = watched.wait_for_another_master(old)
    old.ask("REPLICAOF", "127.0.0.1", new.port)  # as the Sentinels will, which then also cut the connections
    assert not works(count)
    wait_until(lambda: works(count), timeout_s=FAILOVER_TIMEOUT_S, what="the same client counts again")
    counted = count()
    assert new.ask("GET", KEY) == str(counted)


def test_after_the_slots_owner_is_killed_the_same_client_uses_the_promoted_one(cluster: Cluster) -> None:
    count = counting(connect(cluster.url, timeout_s=2))
    count()
    cluster.owner.kill()
    wait_until(lambda: works(count), timeout_s=FAILOVER_TIMEOUT_S, what="the same client counts again")
    assert cluster.replica.role == "master"


def test_a_slot_that_moves_to_another_node_costs_one_call(cluster: Cluster) -> None:
    count = counting(connect(cluster.url, timeout_s=2))
    count()
    cluster.owner.ask("DEL", KEY)  # only an empty slot moves without more ado
    taker, third = cluster.others
    slot, taker_id = key_slot(KEY.encode()), taker.ask("CLUSTER MYID")
    taker.ask("CLUSTER SETSLOT", slot, "IMPORTING", cluster.owner.ask("CLUSTER MYID"))
    # The taker first: as one that imports it takes a new epoch, so that no other node takes the slot back.
    for node in (taker, third, cluster.owner):
        node.ask("CLUSTER SETSLOT", slot, "NODE", taker_id)
    assert not works(count)
    assert count() == 1
    assert taker.ask("GET", KEY) == "1"


def test_the_other_nodes_are_known_when_the_only_one_in_the_address_is_gone(cluster: Cluster) -> None:
    only = cluster.others[0]
    client = connect(cluster.url_of([only]), timeout_s=2)
    count = counting(client)
    assert count() == 1
    only.kill()
    client.connection_pool.disconnect()
    assert count() == 2
