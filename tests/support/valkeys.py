"""Valkey servers that a test may freeze and kill: alone, watched by Sentinels, in a cluster."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis, RedisError
from redis.crc import key_slot

from couponapp.local.postgres import free_port
from couponapp.local.valkey import binary
from couponapp.storage.redis import HASH_TAG
from tests.support.servers import wait_until

PASSWORD = "valkey-test"
SERVICE = "coupons"
SLOTS = 16_384
START_TIMEOUT_S = 30.0
# Far more than a failover takes, which is a second or two with the settings below.
FAILOVER_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Server:
    """One process."""

    port: int
    process: subprocess.Popen[bytes]
    password: str

    @property
    def url(self) -> str:
        """The address of this server alone."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}"

    @property
    def role(self) -> str:
        """`master`, `slave` or `sentinel`; empty while it does not answer."""
        try:
            return str(self.ask("ROLE")[0])
        except RedisError:
            return ""

    def ask(self, *words: object) -> Any:
        """The answer to one command."""
        with Redis.from_url(self.url, socket_timeout=5, decode_responses=True) as client:
            execute: Any = client.execute_command
            return execute(*words)

    def freeze(self) -> None:
        """It keeps all its connections, takes new ones, and answers nothing."""
        self.process.send_signal(signal.SIGSTOP)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Frozen for a while."""
        self.freeze()
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """It is gone at once."""
        self.process.kill()
        self.process.wait(10)


@contextmanager
def running_valkey(
    directory: Path, *lines: str, password: str = PASSWORD, as_sentinel: bool = False
) -> Iterator[Server]:
    """Start a server with these lines in its configuration, wait until it answers, kill it."""
    port = free_port()
    home = directory / f"valkey-{port}"
    home.mkdir(parents=True)
    where = ["bind 127.0.0.1", f"port {port}", f"dir {home}", f"requirepass {password}"]
    data = [] if as_sentinel else ['save ""', f"primaryauth {password}", "repl-diskless-sync-delay 0"]
    (home / "valkey.conf").write_text("\n".join([*where, *data, *lines, ""]))
    command = [str(binary()), str(home / "valkey.conf"), *(["--sentinel"] if as_sentinel else [])]
    with open(home / "server.log", "wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    server = Server(port, process, password)
    try:
        wait_until(lambda: server.role, timeout_s=START_TIMEOUT_S, what="Valkey answers")
        yield server
    finally:
        server.kill()


@dataclass(frozen=True)
class Watched:
    """A master with a replica, and the Sentinels that watch them."""

    servers: Sequence[Server]
    sentinels: Sequence[Server]

    def url(self, database: int = 0, arguments: str = "") -> str:
        """The address of the service."""
        return f"redis+sentinel://:{PASSWORD}@{_list(self.sentinels)}/{SERVICE}/{database}{arguments}"

    @property
    def master(self) -> Server:
        """Who says that it is the master."""
        return next(server for server in self.servers if server.role == "master")

    def wait_for_another_master(self, old: Server) -> Server:
        """Until the Sentinels have promoted the replica."""
        other = next(server for server in self.servers if server is not old)
        wait_until(lambda: other.role == "master", timeout_s=FAILOVER_TIMEOUT_S, what="the replica is promoted")
        return other


@contextmanager
def watched_valkeys(
    directory: Path, *, patience_ms: int = 1_000, sentinel_password: str = PASSWORD
) -> Iterator[Watched]:
    """A master, a replica, and two Sentinels that fail over when the master is silent for so long."""
    with ExitStack() as stack:
        master = stack.enter_context(running_valkey(directory))
        replica = stack.enter_context(running_valkey(directory, f"replicaof 127.0.0.1 {master.port}"))
        # A Sentinel that does not see the replica at once looks again ten seconds later.
        wait_until(lambda: _is_linked(replica), timeout_s=START_TIMEOUT_S, what="the replica is linked")
        watch = [
            f"sentinel monitor {SERVICE} 127.0.0.1 {master.port} 1",
            f"sentinel auth-pass {SERVICE} {PASSWORD}",
            f"sentinel down-after-milliseconds {SERVICE} {patience_ms}",
            f"sentinel failover-timeout {SERVICE} 3000",
            f"sentinel sentinel-pass {sentinel_password}",
        ]
        sentinels = [
            stack.enter_context(running_valkey(directory, *watch, password=sentinel_password, as_sentinel=True))
            for _ in range(2)
        ]
        with _talkative(sentinels):
            wait_until(lambda: all(map(_sees_all, sentinels)), timeout_s=START_TIMEOUT_S, what="the Sentinels see all")
        yield Watched([master, replica], sentinels)


@contextmanager
def _talkative(sentinels: Sequence[Server]) -> Iterator[None]:
    """Let Sentinels tell of themselves and ask for replicas ten times a second, not every 2 and 10 seconds."""
    before = sentinels[0].ask("SENTINEL DEBUG")
    for sentinel in sentinels:
        sentinel.ask("SENTINEL DEBUG", "PUBLISH-PERIOD", 100, "INFO-PERIOD", 100)
    yield
    for sentinel in sentinels:
        sentinel.ask(
            "SENTINEL DEBUG", *(word for name in ("PUBLISH-PERIOD", "INFO-PERIOD") for word in (name, before[name]))
        )


def _is_linked(replica: Server) -> bool:
    return "master_link_status:up" in _info(replica, "INFO", "replication")


def _sees_all(sentinel: Server) -> bool:
    state = sentinel.ask("SENTINEL MASTER", SERVICE)
    return bool(state["num-other-sentinels"] == 1 and state["num-slaves"] == 1)


@dataclass(frozen=True)
class Cluster:
    """Three masters, and a replica of the one that owns the hash slot of our keys.

    Attributes:
        owner: who owned it at the beginning.
        others: the other masters.
        replica: the owner's.
    """

    owner: Server
    others: Sequence[Server]
    replica: Server

    @property
    def masters(self) -> list[Server]:
        """All masters, as they were at the beginning."""
        return [self.owner, *self.others]

    @property
    def url(self) -> str:
        """The address of the cluster: all masters."""
        return self.url_of(self.masters)

    def url_of(self, nodes: Sequence[Server]) -> str:
        """The address of the cluster by these nodes only."""
        return f"redis+cluster://:{PASSWORD}@{_list(nodes)}/"


@contextmanager
def cluster_of_valkeys(directory: Path, *, patience_ms: int = 1_000) -> Iterator[Cluster]:
    """A cluster that fails over when a node is silent for so long."""
    with ExitStack() as stack:
        buses = [free_port() for _ in range(4)]
        lines = [
            "cluster-enabled yes",
            f"cluster-node-timeout {patience_ms}",
            "cluster-replica-validity-factor 0",
            "cluster-require-full-coverage no",
        ]
        nodes = [stack.enter_context(running_valkey(directory, *lines, f"cluster-port {bus}")) for bus in buses]
        masters, replica = nodes[:3], nodes[3]
        for number, master in enumerate(masters):
            master.ask("CLUSTER ADDSLOTSRANGE", number * SLOTS // 3, (number + 1) * SLOTS // 3 - 1)
            master.ask("CLUSTER SET-CONFIG-EPOCH", number + 1)
        for node, bus in list(zip(nodes, buses, strict=True))[1:]:
            nodes[0].ask("CLUSTER MEET", "127.0.0.1", node.port, bus)
        wait_until(lambda: all(map(_knows_all, nodes)), timeout_s=START_TIMEOUT_S, what="each node knows the others")
        owner = masters[node_of(HASH_TAG)]
        replica.ask("CLUSTER REPLICATE", owner.ask("CLUSTER MYID"))
        wait_until(lambda: _is_linked(replica), timeout_s=START_TIMEOUT_S, what="the replica is linked")
        # Not before two seconds after the start, however soon the rest is done.
        wait_until(lambda: all(map(_is_up, nodes)), timeout_s=START_TIMEOUT_S, what="the cluster is up")
        yield Cluster(owner, [master for master in masters if master is not owner], replica)


def node_of(key: str) -> int:
    """The number of the master that has this key at the beginning."""
    return next(number for number in range(3) if key_slot(key.encode()) < (number + 1) * SLOTS // 3)


def _knows_all(node: Server) -> bool:
    return "cluster_known_nodes:4" in _info(node, "CLUSTER INFO")


def _is_up(node: Server) -> bool:
    return "cluster_state:ok" in _info(node, "CLUSTER INFO")


def _info(server: Server, *words: str) -> str:
    answer = server.ask(*words)
    return "\n".join(f"{name}:{value}" for name, value in answer.items()) if isinstance(answer, dict) else str(answer)


def _list(servers: Sequence[Server]) -> str:
    return ",".join(f"127.0.0.1:{server.port}" for server in servers)
