"""Redis clients whose every call is bounded, whatever the servers do.

The library's own clients for Sentinel and Cluster wait much longer than their timeouts:
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

# The hash tag of all our keys: on a cluster a client here uses one hash slot only, and a script may use
# only one.
HASH_TAG = "{couponapp}"

Address = tuple[str, int]


def connect(url: str, *, timeout_s: float) -> Redis:
    """Return a client. It does not connect yet; connections are made when they are needed.

    Supported addresses:

    - `redis://`, `rediss://`, `unix://`: one server, as in redis-py's `from_url`.
    - `redis+sentinel://[[user]:password@]host:port[,host:port…]/service[/db]`: the master that the
      Sentinels report, also after a failover. The credentials are for master and Sentinels; with
      `?sentinel_password=…` (and `sentinel_username`) the Sentinels have their own.
    - `redis+cluster://[[user]:password@]host:port[,host:port…][/]`: the node of a cluster that owns the
      hash slot of `HASH_TAG`, also after a failover or a move of the slot. All keys must begin with this
      tag. Other keys raise `redis.ConnectionError`.

    There are no retries: a server that is frozen or unreachable costs one `timeout_s`, plus another if it
    must be discovered first. A server that answers every step at the last moment costs more: connect,
    login, choice of the database, and command each have the bound. The resolver bounds the look-up of a
    host's name.

    Args:
        url: the address, as `couponapp.config.settings` accepts it.
        timeout_s: the bound of connecting and of each answer, in seconds. Timeouts and retries in the
            address have no effect.

    Raises:
        ConfigurationError: the address is incomplete, or has unknown arguments.
    """
    try:
        group = redis_url.parse(url)
        return _single_server(url, timeout_s) if group is None else _discovered_server(group, timeout_s)
    except (TypeError, ValueError, RedisError) as error:
        # The reason is left out: it quotes the address, which may contain a password.
        raise ConfigurationError("REDIS_URL or COUPON_RQ_URL is not an address that redis-py can use") from error


def _single_server(url: str, timeout_s: float) -> Redis:
    options = _options(timeout_s)
    client = Redis.from_url(url, **options)
    pool = client.connection_pool
    # Again, because arguments in the address take precedence.
    pool.connection_kwargs.update(options)
    pool.connection_class(**pool.connection_kwargs)  # raises on unknown arguments; does not connect
    return client


def _discovered_server(group: Group, timeout_s: float) -> Redis:
    pool = SentinelConnectionPool(  # type: ignore[no-untyped-call]  # redis-py has types for a part of itself
        group.service or HASH_TAG,
        _Sentinels(group, timeout_s) if group.service else _ClusterNodes(group, timeout_s),
        connection_class=_DiscoveredConnection,
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
        # A server's maintenance notice would extend the timeouts to 10 s.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        # Saves two round trips per connection, which announce the library's name and version.
        "driver_info": None,
    }


def _login(login: Credentials) -> dict[str, Any]:
    return {name: text for name, text in (("username", login.username), ("password", login.password)) if text}


class _Discovery(abc.ABC):
    """Finds the server to connect to; stands in for redis-py's `Sentinel`, which its connection pool calls.

    It queries one server after the other. Each may take half of `timeout_s`, so that a frozen one does not
    block the others, and after `timeout_s` no more are queried. A server that did not answer is queried
    last the next time. Concurrent callers share one search.
    """

    def __init__(self, servers: tuple[Address, ...], login: Credentials, timeout_s: float) -> None:
        self._login = _login(login)
        self._timeout_s = timeout_s
        self._clients = {server: self._client(server) for server in servers}
        self._lock = threading.Lock()
        self._search: Future[Address] | None = None

    def discover_master(self, service_name: str) -> Address:
        """Return the server to connect to; redis-py's pool calls this for each new connection.

        Raises:
            redis.sentinel.MasterNotFoundError: a `redis.ConnectionError`; no server knows it.
        """
        with self._lock:
            search, mine = self._search, self._search is None
            if search is None:
                search = self._search = Future()
        if mine:
            try:
                search.set_result(self._query_all(service_name))
            except RedisError as error:
                search.set_exception(error)
                raise
            finally:
                self._search = None
                if not search.done():  # a signal, or the end of the greenlet
                    search.set_exception(MasterNotFoundError("the search was interrupted"))
        try:
            return search.result(2 * self._timeout_s)
        except Exception as error:
            raise MasterNotFoundError(str(error)) from error

    def _query_all(self, service_name: str) -> Address:
        give_up_s = time.monotonic() + self._timeout_s
        failure = "there was no server to query"
        for server, client in tuple(self._clients.items()):
            try:
                return self._query(service_name, server, client)
            except RedisError as error:
                failure = f"{server[0]}:{server[1]}: {error}"
                others = {other: theirs for other, theirs in self._clients.items() if other != server}
                self._clients = {**others, server: client}
            if time.monotonic() >= give_up_s:
                break
        raise MasterNotFoundError(f"no server found for {service_name}; last failure: {failure}")

    @abc.abstractmethod
    def _query(self, service_name: str, server: Address, client: Redis) -> Address:
        """Return the address that a server reports, or raise a RedisError."""

    def _client(self, server: Address) -> Redis:
        host, port = server
        return Redis.from_pool(ConnectionPool(host=host, port=port, **self._login, **_options(self._timeout_s / 2)))


class _Sentinels(_Discovery):
    """Asks Sentinels for the master of a service."""

    def __init__(self, group: Group, timeout_s: float) -> None:
        super().__init__(group.servers, group.sentinel_login, timeout_s)

    def _query(self, service_name: str, server: Address, client: Redis) -> Address:
        state: Any = client.sentinel_master(service_name)
        # Until the promotion the Sentinels still report the dead master.
        if not state["is_master"] or state["is_sdown"] or state["is_odown"]:
            raise RedisConnectionError("the master is down")
        return str(state["ip"]), int(state["port"])


class _ClusterNodes(_Discovery):
    """Asks the nodes of a cluster which of them owns the hash slot of our keys."""

    def __init__(self, group: Group, timeout_s: float) -> None:
        super().__init__(group.servers, group.login, timeout_s)
        self._configured = group.servers
        self._slot = key_slot(HASH_TAG.encode())

    def _query(self, service_name: str, server: Address, client: Redis) -> Address:
        table: Any = client.execute_command("CLUSTER SLOTS")  # type: ignore[no-untyped-call]  # redis-py, as above
        rows = [(first, last, [_node(node, server) for node in nodes]) for first, last, *nodes in table]
        self._update_clients(server, [node for *_, nodes in rows for node in nodes])
        for first, last, nodes in rows:
            if first <= self._slot <= last:
                return nodes[0]
        raise RedisConnectionError(f"no node owns the hash slot {self._slot}")

    def _update_clients(self, answered: Address, nodes: list[Address]) -> None:
        """Keep clients for the configured nodes and the current ones: all configured nodes may be gone one day."""
        old, kept = self._clients, {*self._configured, *nodes}
        order = dict.fromkeys((answered, *old, *nodes))
        self._clients = {node: old.get(node) or self._client(node) for node in order if node in kept}


def _node(node: Any, queried: Address) -> Address:
    # A node that does not know its own address reports none: it has the one that was queried.
    return str_if_bytes(node[0] or b"") or queried[0], int(node[1])


class _DiscoveredConnection(SentinelManagedConnection):
    """A connection to the server that was discovered when it was made."""

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        # The parent's default would leave the answer to the next command when a signal or a timeout of
        # the caller interrupts a read.
        kwargs.setdefault("disconnect_on_error", True)
        try:
            return super().read_response(*args, **kwargs)
        except MovedError as error:
            # Disconnected, so that the next call discovers the new owner.
            self.disconnect()  # type: ignore[no-untyped-call]  # redis-py, as above
            raise RedisConnectionError(f"another node owns the key's hash slot: {error}") from error
