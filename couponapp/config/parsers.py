"""Parsers of settings: text in, value out.

Each raises ValueError when the text is not valid. The message says what is wrong and continues a
sentence that begins with the setting's name. It never quotes a password.
"""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from limits import parse_many as parse_rate_limits

from couponapp.config import redis_url

# RFC 7518, section 3.2: a key for HS256 has at least the size of the hash output.
MIN_SECRET_BYTES = 32

# Plain addresses only: a subset of «Mailbox» in RFC 5321, section 4.1.2.
EMAIL = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+"
)

# The pages' own session cookie.
SESSION_COOKIE = "coupon_session"


@dataclass(frozen=True)
class Integer:
    """Parser of a whole number from `low` to `high`, written in at most 9 ASCII digits."""

    low: int
    high: int

    def __call__(self, raw: str) -> int:
        """Return the number, or raise ValueError."""
        if not re.fullmatch(r"[0-9]{1,9}", raw) or not self.low <= int(raw) <= self.high:
            raise ValueError(f"must be a whole number from {self.low} to {self.high}")
        return int(raw)


def flag(raw: str) -> bool:
    """Accept 0 or 1."""
    if raw not in ("0", "1"):
        raise ValueError("must be 0 or 1")
    return raw == "1"


def _matching(pattern: str | re.Pattern[str], requirement: str) -> Callable[[str], str]:
    """Return a parser of texts that match a pattern completely.

    Args:
        pattern: a regular expression.
        requirement: the error's message.
    """

    def parse(raw: str) -> str:
        if not re.fullmatch(pattern, raw):
            raise ValueError(requirement)
        return raw

    return parse


email = _matching(EMAIL, "must be an e-mail address")
address = _matching(r"[A-Za-z0-9._-]+", "must be an IPv4 address or a host name")
cookie_name = _matching(
    rf"(?!{SESSION_COOKIE}\Z)[A-Za-z0-9_-]{{1,64}}",
    f"must be 1 to 64 letters, digits, _ or -, and not {SESSION_COOKIE}",
)


def _url(*schemes: str) -> Callable[[str], str]:
    def parse(raw: str) -> str:
        try:
            parts = urlsplit(raw)
            _ = parts.port
        except ValueError:
            # The reason is left out: it quotes the text, which may be part of a password.
            raise ValueError("is not a URL; a password's special characters must be percent-encoded") from None
        if parts.scheme not in schemes or not raw.startswith(f"{parts.scheme}://"):
            raise ValueError("must be a URL that begins with " + " or ".join(f"{s}://" for s in schemes))
        return raw

    return parse


# Several servers in one address, which libpq tries in turn; urlsplit cannot read such an address.
_SEVERAL_SERVERS = re.compile(
    r"postgres(?:ql)?://(?:[^/?#]*@)?(?P<servers>[^/?#@]*,[^/?#@]*)(?:/[^?#]*)?(?:\?(?P<query>[^#]*))?"
)
_HOST_AND_PORT = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?")
# Values of libpq's target_session_attrs that select a server which accepts writes.
_WRITABLE = ("read-write", "primary")


def postgresql_url(raw: str) -> str:
    """Accept the address of one PostgreSQL server, or of several."""
    several = _SEVERAL_SERVERS.fullmatch(raw)
    if several is None:
        return _url("postgresql", "postgres")(raw)
    servers = [_HOST_AND_PORT.fullmatch(server) for server in several["servers"].split(",")]
    if not all(server and 0 < int(server["port"] or 5432) < 65536 for server in servers):
        raise ValueError("must name its servers as host:port,host:port")
    if parse_qs(several["query"] or "").get("target_session_attrs", [""])[-1] not in _WRITABLE:
        # A pool that connects to a standby would stay on it.
        raise ValueError("names several servers, which needs ?target_session_attrs=read-write")
    return raw


def smtp_url(raw: str) -> str:
    """Accept a mail server's address; with a password only where TLS protects it."""
    parts = urlsplit(_url("smtp", "smtps", "smtp+plain")(raw))
    if not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("must be smtp://, smtps:// or smtp+plain://, then [user:password@]host[:port]")
    if parts.scheme == "smtp+plain" and parts.username is not None:
        raise ValueError("must not send a password in plain text: smtp+plain:// takes no user")
    return raw


def email_of_user(raw: str) -> str:
    """Accept a template that turns a user's id into an e-mail address."""
    if raw.count("{user_id}") != 1 or "{user_id}" not in raw.partition("@")[0]:
        raise ValueError("must be an e-mail address with {user_id} before its @, or {user_id} alone")
    if raw != "{user_id}":
        email(raw.replace("{user_id}", "user"))
    return raw


def webhook_url(raw: str) -> str:
    """Accept the URL that events are posted to."""
    parts = urlsplit(_url("https", "http")(raw))
    if not parts.hostname or parts.username is not None or not raw.isascii() or not raw.isprintable() or " " in raw:
        raise ValueError("must be a URL with a host, in ASCII, without a user")
    return raw


_one_redis = _url("redis", "rediss", "unix", redis_url.SENTINEL, redis_url.CLUSTER)


def redis(raw: str) -> str:
    """Accept the address of one Redis server, of a master behind Sentinels, or of a cluster."""
    return raw if redis_url.parse(raw) else _one_redis(raw)


def queue(raw: str) -> str:
    """Accept the address of a Redis that RQ can run on."""
    if redis_url.is_cluster(raw):
        raise ValueError("must not be a cluster: RQ does not run on one")
    return redis(raw)


def secret(raw: str) -> str:
    """Accept a signing key of at least `MIN_SECRET_BYTES` bytes."""
    if len(raw.encode()) < MIN_SECRET_BYTES:
        raise ValueError(f"must have at least {MIN_SECRET_BYTES} bytes")
    return raw


def rate(raw: str) -> str:
    """Accept one rate in the notation of the `limits` library."""
    try:
        (limit,) = parse_rate_limits(raw)
    except ValueError as error:
        raise ValueError("must be a rate such as 5/minute") from error
    if limit.amount < 1:
        raise ValueError("must allow at least 1; to stop an event, pause its coupon")
    return raw


def hosts(raw: str) -> tuple[str, ...]:
    """Split a list of the host names that requests may name."""
    hosts = tuple(host.strip().lower() for host in raw.split(",") if host.strip())
    if not hosts or not all(re.fullmatch(r"\.?[a-z0-9][a-z0-9.\-]*|\[[0-9a-f:.]+\]", host) for host in hosts):
        raise ValueError("must be a comma-separated list of host names without ports")
    return hosts


def time_zone(raw: str) -> zoneinfo.ZoneInfo:
    """Look up a name in the IANA time zone database."""
    try:
        return zoneinfo.ZoneInfo(raw)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("must be a time zone such as Asia/Seoul") from error


def one_of(*values: str) -> Callable[[str], str]:
    """Return a parser that accepts only these words."""

    def parse(raw: str) -> str:
        if raw not in values:
            raise ValueError("must be one of " + ", ".join(values))
        return raw

    return parse


CHANNELS = ("file", "email", "webhook")


def webhook_secrets(raw: str) -> tuple[str, ...]:
    """Split a list of secrets as Standard Webhooks defines them: 24 to 64 bytes in base64."""
    for secret in raw.split():
        if not re.fullmatch(r"whsec_([A-Za-z0-9+/]{4}){8,21}([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", secret):
            raise ValueError("must be secrets such as whsec_…, each with 24 to 64 bytes in base64, the newest first")
    return tuple(raw.split())


def channels(raw: str) -> tuple[str, ...]:
    """Split a list of notification channels."""
    names = tuple(name.strip() for name in raw.split(","))
    if not set(names) <= set(CHANNELS) or len(set(names)) != len(names):
        raise ValueError("must be a comma-separated list of " + ", ".join(CHANNELS) + ", each at most once")
    return names
