"""Parses the two forms of REDIS_URL that name several servers, as the `limits` library defines them.

redis+sentinel://[[user]:password@]host:port[,host:port…]/service[/db][?sentinel_password=…]
redis+cluster://[[user]:password@]host:port[,host:port…][/]
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

SENTINEL, CLUSTER = "redis+sentinel", "redis+cluster"

_FORM = re.compile(
    r"(?P<scheme>[a-z+]+)://(?:(?P<user>[^:@/?#]*):(?P<password>[^@/?#]*)@)?"
    r"(?P<servers>[^@/?#]+)(?:/(?P<path>[^?#]*))?(?:\?(?P<query>[^#]*))?"
)
_SERVER = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})")
# The names that Sentinel itself accepts.
_SERVICE = re.compile(r"(?P<service>[A-Za-z0-9._-]+)(?:/(?P<database>[0-9]{1,5})?)?")
_SENTINEL_ARGUMENTS = ("sentinel_username", "sentinel_password")

_SENTINEL_HINT = "must look like redis+sentinel://user:password@host:port,host:port/service/0"
_CLUSTER_HINT = "must look like redis+cluster://user:password@host:port,host:port/"
_ENCODING_HINT = "; a password's special characters must be percent-encoded"


@dataclass(frozen=True)
class Credentials:
    """A user name and a password; empty for none."""

    username: str = ""
    password: str = ""


@dataclass(frozen=True)
class Group:
    """The servers of one address.

    Attributes:
        servers: host and port of each Sentinel, or of each configured node of a cluster.
        login: credentials for the servers that hold the data.
        service: the master's name in Sentinel; empty for a cluster.
        database: the number of the database; 0 for a cluster.
        sentinel_login: credentials for the Sentinels.
    """

    servers: tuple[tuple[str, int], ...]
    login: Credentials
    service: str = ""
    database: int = 0
    sentinel_login: Credentials = Credentials()


def parse(url: str) -> Group | None:
    """Parse an address.

    User names and passwords are percent-decoded. As in the `limits` library the credentials also apply to
    the Sentinels, unless the address has `sentinel_password` (and `sentinel_username`).

    Args:
        url: any address of Redis.

    Returns:
        The servers, or None for an address of one server.

    Raises:
        ValueError: the address is incomplete. The message never quotes it.
    """
    if url.startswith(f"{SENTINEL}://"):
        return _sentinels(url)
    if url.startswith(f"{CLUSTER}://"):
        return _cluster(url)
    return None


def is_cluster(url: str) -> bool:
    """Return whether an address names a cluster."""
    return url.startswith(f"{CLUSTER}:")


def _sentinels(url: str) -> Group:
    form = _FORM.fullmatch(url)
    service = _SERVICE.fullmatch(form["path"] or "") if form else None
    if form is None or service is None:
        raise ValueError(_SENTINEL_HINT + _ENCODING_HINT)
    arguments = dict(parse_qsl(form["query"] or "", keep_blank_values=True))
    if not set(arguments) <= set(_SENTINEL_ARGUMENTS):
        raise ValueError("may have no arguments but " + " and ".join(_SENTINEL_ARGUMENTS))
    login = _login(form)
    return Group(
        servers=_servers(form["servers"], _SENTINEL_HINT),
        login=login,
        service=service["service"],
        database=int(service["database"] or 0),
        sentinel_login=Credentials(*(arguments.get(name, "") for name in _SENTINEL_ARGUMENTS)) if arguments else login,
    )


def _cluster(url: str) -> Group:
    form = _FORM.fullmatch(url)
    if form is None or form["path"] or form["query"]:
        raise ValueError(f"{_CLUSTER_HINT}, without a database{_ENCODING_HINT}")
    return Group(servers=_servers(form["servers"], _CLUSTER_HINT), login=_login(form))


def _login(form: re.Match[str]) -> Credentials:
    return Credentials(unquote(form["user"] or ""), unquote(form["password"] or ""))


def _servers(text: str, hint: str) -> tuple[tuple[str, int], ...]:
    found = [_SERVER.fullmatch(server.strip()) for server in text.split(",")]
    servers = tuple((server["host"].strip("[]"), int(server["port"])) for server in found if server)
    if len(servers) < len(found) or not all(1 <= port <= 65535 for _, port in servers):
        raise ValueError(f"{hint}, each host with its port{_ENCODING_HINT}")
    return servers
