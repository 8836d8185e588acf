"""Redis: an address → a client whose every call ends soon, whatever the servers do.

The library's own clients for Sentinel and Cluster wait far longer than their time-outs say:
docs/decisions/0017-redis-addresses.md.
"""

from __future__ import annotations

import abc
import threading
import time
from concurrent.futures import Future
from typing import Any

from redis import ConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MovedError, RedisError
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, SentinelConnectionPool, SentinelManagedConnection
from redis.utils import str_if_bytes

from couponapp.config import redis_url
from couponapp.config.redis_url import Credentials, Group
from couponapp.errors import ConfigurationError

# What all our keys on a cluster have in common: a client of a cluster talks to one hash slot only,
# and a script may touch only one.
HASH_TAG = "{couponapp}"

Address = tuple[str, int]


def connect(url: str, *, timeout_s: float) -> Redis:
    """Make a client. It connects nowhere yet; each connection is made when it is needed.

    Supported:

    - `redis://`, `rediss://`, `unix://`: one server, as in redis-py's `from_url`.
    - `redis+sentinel://[[user]:password@]host:port[,host:port…]/service[/db]`: the master that
      the Sentinels name, a new one after a failover. The credentials are for master and
      Sentinels; with `?sentinel_password=…` (and `sentinel_username`) the Sentinels have their own.
    - `redis+cluster://[[user]:password@]host:port[,host:port…][/]`: of a cluster the node that
      owns the hash slot of `HASH_TAG`; a new one after a failover or when the slot has moved. All
      keys must begin with this tag. Others raise `redis.ConnectionError`.

    Nothing is tried twice: a server that is frozen or cannot be reached costs one `timeout_s`, and
    where it must be found first, another. Only one that always answers at the last moment costs
    more: connecting, logging in, choosing the database and the command wait in turn. Looking up a
    host's name has the resolver's own bound.

    Args:
        url: the address, as `couponapp.config.settings` accepts it.
        timeout_s: seconds that connecting, and each answer, may take. What the address says
            about time-outs and tries does not count.

    Raises:
        ConfigurationError: the address is not complete, or has arguments that nobody knows.
    """
    try:
        group = redis_url.parse(url)
        return _one_server(url, timeout_s) if group is None else _found_server(group, timeout_s)
    except (TypeError, ValueError, RedisError) as error:
        # Not the reason: it quotes what it tripped over, which may be part of a password.
        raise ConfigurationError("REDIS_URL or COUPON_RQ_URL is not an address that redis-py can use") from error


def _one_server(url: str, timeout_s: float) -> Redis:
    options = _options(timeout_s)
    client = Redis.from_url(url, **options)
    pool = client.connection_pool
    # Once more, because arguments in the address have won.
    pool.connection_kwargs.update(options)
    pool.connection_class(**pool.connection_kwargs)  # refuses unknown arguments; connects nowhere
    return client


def _found_server(group: Group, timeout_s: float) -> Redis:
    pool = SentinelConnectionPool(  # type: ignore[no-untyped-call]  # redis-py has types for a part of itself
        group.service or HASH_TAG,
        _Sentinels(group, timeout_s) if group.service else _ClusterNodes(group, timeout_s),
        connection_class=_FoundConnection,
        db=group.database,
        **_login(group.login),
        **_options(timeout_s),
    )
    return Redis.from_pool(pool)


def _options(timeout_s: float) -> dict[str, Any]:
    return {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
        # A server's notice of maintenance would stretch the time-outs to 10 s.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        # Two round trips less for each new connection: the library's name and version.
        "driver_info": None,
    }


def _login(login: Credentials) -> dict[str, Any]:
    return {name: text for name, text in (("username", login.username), ("password", login.password)) if text}


class _Finder(abc.ABC):
    """Asks one server after the other where the wanted one is; for redis-py's pool it is a `Sentinel`.

    Each may take half of `timeout_s`, so that one that is frozen does not stop the others, and
    after `timeout_s` no more are asked. Who has not answered is asked last the next time. Of a
    crowd that has lost its connections at once, one asks for all.
    """

    def __init__(self, servers: tuple[Address, ...], login: Credentials, timeout_s: float) -> None:
        self._login = _login(login)
        self._timeout_s = timeout_s
        self._witnesses = {server: self._witness(server) for server in servers}
        self._lock = threading.Lock()
        self._search: Future[Address] | None = None

    def discover_master(self, service_name: str) -> Address:
        """Where to connect to; redis-py's pool asks this for each new connection.

        Raises:
            redis.sentinel.MasterNotFoundError: a `redis.ConnectionError`; nobody knows.
        """
        with self._lock:
            search, mine = self._search, self._search is None
            if search is None:
                search = self._search = Future()
        if mine:
            try:
                search.set_result(self._ask_around(service_name))
            except RedisError as error:
                search.set_exception(error)
                raise
            finally:
                self._search = None
                if not search.done():  # a signal, or the end of a greenlet
                    search.set_exception(MasterNotFoundError("the search was broken off"))
        try:
            return search.result(2 * self._timeout_s)
        except Exception as error:
            raise MasterNotFoundError(str(error)) from error

    def _ask_around(self, service_name: str) -> Address:
        give_up_s = time.monotonic() + self._timeout_s
        told = "nobody was asked"
        for server, witness in tuple(self._witnesses.items()):
            try:
                return self._ask(service_name, server, witness)
            except RedisError as error:
                told = f"{server[0]}:{server[1]}: {error}"
                others = {other: client for other, client in self._witnesses.items() if other != server}
                self._witnesses = {**others, server: witness}
            if time.monotonic() >= give_up_s:
                break
        raise MasterNotFoundError(f"no server found for {service_name}; the last one asked, {told}")

    @abc.abstractmethod
    def _ask(self, service_name: str, server: Address, witness: Redis) -> Address:
        """The address that this server tells, or a RedisError."""

    def _witness(self, server: Address) -> Redis:
        host, port = server
        return Redis.from_pool(ConnectionPool(host=host, port=port, **self._login, **_options(self._timeout_s / 2)))


class _Sentinels(_Finder):
    """Asks Sentinels for the master of a service."""

    def __init__(self, group: Group, timeout_s: float) -> None:
        super().__init__(group.servers, group.sentinel_login, timeout_s)

    def _ask(self, service_name: str, server: Address, witness: Redis) -> Address:
        state: Any = witness.sentinel_master(service_name)
        # While nobody is promoted the dead master is still named; there is no use in trying it.
        if not state["is_master"] or state["is_sdown"] or state["is_odown"]:
            raise RedisConnectionError("the master is down")
        return str(state["ip"]), int(state["port"])


class _ClusterNodes(_Finder):
    """Asks the nodes of a cluster who owns the hash slot of our keys."""

    def __init__(self, group: Group, timeout_s: float) -> None:
        super().__init__(group.servers, group.login, timeout_s)
        self._configured = group.servers
        self._slot = key_slot(HASH_TAG.encode())

    def _ask(self, service_name: str, server: Address, witness: Redis) -> Address:
        table: Any = witness.execute_command("CLUSTER SLOTS")  # type: ignore[no-untyped-call]  # likewise
        rows = [(first, last, [_node(node, server) for node in nodes]) for first, last, *nodes in table]
        self._learn(server, [node for *_, nodes in rows for node in nodes])
        for first, last, nodes in rows:
            if first <= self._slot <= last:
                return nodes[0]
        raise RedisConnectionError(f"no node owns the hash slot {self._slot}")

    def _learn(self, answered: Address, nodes: list[Address]) -> None:
        """Nodes come and go; those that were configured may all be gone one day."""
        known = self._witnesses
        wanted = dict.fromkeys((answered, *known, *nodes))
        kept = {*self._configured, *nodes}
        self._witnesses = {node: known.get(node) or self._witness(node) for node in wanted if node in kept}


def _node(node: Any, asked: Address) -> Address:
    # A node that does not know its own address means the one under which it was asked.
    return str_if_bytes(node[0] or b"") or asked[0], int(node[1])


class _FoundConnection(SentinelManagedConnection):
    """A connection to the server that was found when it was made."""

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        # Unlike its parent's, which leaves the answer to the next command when a signal or a
        # time-out of the caller breaks off a read.
        kwargs.setdefault("disconnect_on_error", True)
        try:
            return super().read_response(*args, **kwargs)
        except MovedError as error:
            # Closed, so that the next call looks for the owner anew.
            self.disconnect()  # type: ignore[no-untyped-call]  # likewise
            raise RedisConnectionError(f"another node owns the key's hash slot: {error}") from error
