"""What the text of a setting may be, and the value that it becomes.

Each function takes the text and returns the value, or raises ValueError with what is wrong, worded so
that it can follow the setting's name.
"""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

from limits import parse_many as parse_rate_limits

from couponapp.config import redis_url

# RFC 7518, section 3.2: a key for HS256 has at least the size of the hash output.
MIN_SECRET_BYTES = 32

# Plain addresses only, a subset of RFC 5321's «Mailbox».
EMAIL = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+"
)

# The pages' own cookie; see couponapp.web.app.
SESSION_COOKIE = "coupon_session"


def text(raw: str) -> str:
    """Anything."""
    return raw


def integer(low: int, high: int) -> Callable[[str], int]:
    """A whole number, of 9 digits at most."""

    def parse(raw: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", raw) or not low <= int(raw) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(raw)

    return parse


def flag(raw: str) -> bool:
    """0 or 1."""
    if raw not in ("0", "1"):
        raise ValueError("must be 0 or 1")
    return raw == "1"


def _url(*schemes: str) -> Callable[[str], str]:
    def parse(raw: str) -> str:
        try:
            parts = urlsplit(raw)
            _ = parts.port
        except ValueError:
            # Not the reason: it quotes what it tripped over, which may be part of a password.
            raise ValueError("is not a URL; a password's special characters must be percent-encoded") from None
        if parts.scheme not in schemes or not raw.startswith(f"{parts.scheme}://"):
            raise ValueError("must be a URL that begins with " + " or ".join(f"{s}://" for s in schemes))
        return raw

    return parse


# Several servers in one address: libpq tries them in turn. No URL to the standard library.
_SEVERAL_SERVERS = re.compile(
    r"postgres(?:ql)?://(?:[^/?#]*@)?(?P<servers>[^/?#@]*,[^/?#@]*)(?:/[^?#]*)?(?:\?(?P<query>[^#]*))?"
)
_HOST_AND_PORT = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?")
# libpq's words for a server that takes writes.
_WRITABLE = ("read-write", "primary")


def postgresql_url(raw: str) -> str:
    """A database's address, of one server or several."""
    several = _SEVERAL_SERVERS.fullmatch(raw)
    if several is None:
        return _url("postgresql", "postgres")(raw)
    servers = [_HOST_AND_PORT.fullmatch(server) for server in several["servers"].split(",")]
    if not all(server and 0 < int(server["port"] or 5432) < 65536 for server in servers):
        raise ValueError("must name its servers as host:port,host:port")
    if parse_qs(several["query"] or "").get("target_session_attrs", [""])[-1] not in _WRITABLE:
        # A pool that has landed on a standby would stay there.
        raise ValueError("names several servers, which needs ?target_session_attrs=read-write")
    return raw


def smtp_url(raw: str) -> str:
    """A mail server's address; a password only where TLS hides it."""
    parts = urlsplit(_url("smtp", "smtps", "smtp+plain")(raw))
    if not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("must be smtp://, smtps:// or smtp+plain://, then [user:password@]host[:port]")
    if parts.scheme == "smtp+plain" and parts.username is not None:
        raise ValueError("must not send a password in plain text: smtp+plain:// takes no user")
    return raw


def email(raw: str) -> str:
    """An e-mail address."""
    if not EMAIL.fullmatch(raw):
        raise ValueError("must be an e-mail address")
    return raw


def email_of_user(raw: str) -> str:
    """How a user's id becomes an address."""
    if raw.count("{user_id}") != 1 or "{user_id}" not in raw.partition("@")[0]:
        raise ValueError("must be an e-mail address with {user_id} before its @, or {user_id} alone")
    if raw != "{user_id}":
        email(raw.replace("{user_id}", "user"))
    return raw


def webhook_url(raw: str) -> str:
    """Where events are posted."""
    parts = urlsplit(_url("https", "http")(raw))
    if not parts.hostname or parts.username is not None or not raw.isascii() or not raw.isprintable() or " " in raw:
        raise ValueError("must be a URL with a host, in ASCII, without a user")
    return raw


_one_redis = _url("redis", "rediss", "unix", redis_url.SENTINEL, redis_url.CLUSTER)


def redis(raw: str) -> str:
    """A Redis: one server, behind Sentinels, or a cluster."""
    # Several servers in one address, which is no URL to the standard library.
    return raw if redis_url.parse(raw) else _one_redis(raw)


def queue(raw: str) -> str:
    """A Redis that RQ runs on."""
    if redis_url.is_cluster(raw):
        raise ValueError("must not be a cluster: RQ does not run on one")
    return redis(raw)


def secret(raw: str) -> str:
    """A key for signing."""
    if len(raw.encode()) < MIN_SECRET_BYTES:
        raise ValueError(f"must have at least {MIN_SECRET_BYTES} bytes")
    return raw


def rate(raw: str) -> str:
    """One rate in the notation of `limits`."""
    try:
        (limit,) = parse_rate_limits(raw)
    except ValueError as error:
        raise ValueError("must be a rate such as 5/minute") from error
    if limit.amount < 1:
        raise ValueError("must allow at least 1; to stop an event, pause its coupon")
    return raw


def hosts(raw: str) -> tuple[str, ...]:
    """Names that a request's Host may have."""
    hosts = tuple(host.strip().lower() for host in raw.split(",") if host.strip())
    if not hosts or not all(re.fullmatch(r"\.?[a-z0-9][a-z0-9.\-]*|\[[0-9a-f:.]+\]", host) for host in hosts):
        raise ValueError("must be a comma-separated list of host names without ports")
    return hosts


def address(raw: str) -> str:
    """Where to listen."""
    if not re.fullmatch(r"[A-Za-z0-9._-]+", raw):
        raise ValueError("must be an IPv4 address or a host name")
    return raw


def cookie_name(raw: str) -> str:
    """A cookie that is not our own."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", raw) or raw == SESSION_COOKIE:
        raise ValueError(f"must be 1 to 64 letters, digits, _ or -, and not {SESSION_COOKIE}")
    return raw


def time_zone(raw: str) -> zoneinfo.ZoneInfo:
    """A name of the IANA time zone database."""
    try:
        return zoneinfo.ZoneInfo(raw)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("must be a time zone such as Asia/Seoul") from error


def one_of(*values: str) -> Callable[[str], str]:
    """One of these words."""

    def parse(raw: str) -> str:
        if raw not in values:
            raise ValueError("must be one of " + ", ".join(values))
        return raw

    return parse


CHANNELS = ("file", "email", "webhook")


def webhook_secrets(raw: str) -> tuple[str, ...]:
    """Secrets as in Standard Webhooks, separated by spaces."""
    for secret in raw.split():
        # Standard Webhooks: 24 to 64 bytes, in base64.
        if not re.fullmatch(r"whsec_([A-Za-z0-9+/]{4}){8,21}([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", secret):
            raise ValueError("must be secrets such as whsec_…, each with 24 to 64 bytes in base64, the newest first")
    return tuple(raw.split())


def channels(raw: str) -> tuple[str, ...]:
    """Channels of notifications, separated by commas."""
    names = tuple(name.strip() for name in raw.split(","))
    if not set(names) <= set(CHANNELS) or len(set(names)) != len(names):
        raise ValueError("must be a comma-separated list of " + ", ".join(CHANNELS) + ", each at most once")
    return names
