"""Every setting: its name, default, parser and help text. The only reader of the environment.

`load()` is called once at start. A bad value stops the start with one line that names it.
`NAME_FILE` reads the value of `NAME` from a file (for secrets). While `make run` runs, the settings
it chose are in `var/local.env`; they apply where the environment sets nothing, so that
`flask coupons …` finds the servers.
"""

from __future__ import annotations

import os
import zoneinfo
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from couponapp.config import parsers, redis_url
from couponapp.errors import ConfigurationError

LOCAL_ENV_FILE = Path("var/local.env")


def setting(env: str, default: str, parse: Callable[[str], Any]) -> Any:
    """Declare a setting. The docstring below it is its help text.

    The help text says what the setting means and which values are special, in Markdown. In
    `docs/settings.md` the default and the range of a number are added to it.

    Args:
        env: the environment variable's name.
        default: the text that an unset or empty variable stands for; empty: there is no default.
        parse: turns the text into the value, or raises ValueError with what is wrong.
    """
    return field(metadata={"env": env, "default": default, "parse": parse})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings, parsed. A setting that is unset and has no default is an empty string."""

    # Web server
    port: int = setting("PORT", "8000", parsers.Integer(1, 65_535))
    """The web server listens on this port."""

    host: str = setting("COUPON_HOST", "127.0.0.1", parsers.address)
    """The web server listens on this address: an IPv4 address or a host name. `0.0.0.0` listens on all interfaces."""

    web_processes: int = setting("WEB_CONCURRENCY", "2", parsers.Integer(1, 256))
    """The web server runs this many processes. One per processor is a good start."""

    client_timeout_s: int = setting("COUPON_CLIENT_TIMEOUT_S", "10", parsers.Integer(1, 300))
    """A client has this many seconds to send a request's head, as many again for its body, and as many again to
    read the response. After that it gets a 408, or the connection is closed.
    """

    trusted_proxies: int = setting("COUPON_TRUSTED_PROXIES", "0", parsers.Integer(0, 10))
    """This many proxies stand in front of the web server, and their `X-Forwarded-For` and `X-Forwarded-Proto` are
    trusted. Each of them must add its entry; where one is missing or is no address, the proxy's own address counts.
    `0` ignores both headers.
    """

    allowed_hosts: tuple[str, ...] = setting("COUPON_ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]", parsers.hosts)
    """Requests must name one of these hosts, comma-separated and without ports; others get a 400. A name that
    begins with a dot also covers its subdomains. The probes are exempt.
    """

    # PostgreSQL and Redis
    database_url: str = setting("DATABASE_URL", "", parsers.postgresql_url)
    """PostgreSQL 15 or newer is reached at this address: [one server, a primary and its standbys, or a
    PgBouncer](#addresses-of-postgresql). Unset, `make run` and `make test` start their own server.
    """

    redis_url: str = setting("REDIS_URL", "", parsers.redis)
    """Redis or Valkey is reached at this address: [one server, a master behind Sentinels, or a
    cluster](#addresses-of-redis). Unset, `make run` and `make test` start their own server.
    """

    rq_url: str = setting("COUPON_RQ_URL", "", parsers.queue)
    """RQ keeps the queue of notifications on this Redis or Valkey: one server, or a master behind Sentinels, but no
    cluster. Unset, `REDIS_URL` is used.
    """

    # Tokens and sessions
    jwt_secret: str = setting("COUPON_JWT_SECRET", "", parsers.secret)
    """Tokens are signed with this shared secret (HS256). It must have at least 32 bytes. Either this or
    `COUPON_JWT_JWKS` must be set, not both.
    """

    jwt_jwks: str = setting("COUPON_JWT_JWKS", "", str)
    """Tokens are signed with a key of this key set (JWKS; RS256, ES256 or EdDSA), a file or a URL. Either this or
    `COUPON_JWT_SECRET` must be set, not both.
    """

    jwt_audience: str = setting("COUPON_JWT_AUDIENCE", "coupon", str)
    """A token's audience (`aud`) must contain this value."""

    jwt_issuer: str = setting("COUPON_JWT_ISSUER", "", str)
    """A token's issuer (`iss`) must be this value. Unset, any issuer is accepted, and none."""

    secret_key: str = setting("COUPON_SECRET_KEY", "", parsers.secret)
    """The pages' session cookie (CSRF token, notices) is signed with this key. It must have at least 32 bytes and
    be the same in every process.
    """

    cookie_name: str = setting("COUPON_COOKIE_NAME", "coupon_token", parsers.cookie_name)
    """The pages read the user's token from the cookie of this name."""

    cookie_secure: bool = setting("COUPON_COOKIE_SECURE", "1", parsers.flag)
    """With `1`, browsers send the cookies over HTTPS only. `0` is for trials without TLS."""

    demo_login: bool = setting("COUPON_DEMO_LOGIN", "0", parsers.flag)
    """With `1`, anybody may log in as any user at `/login`. This needs `COUPON_JWT_SECRET` and is for demos only."""

    # Rate limits
    limit_user: str = setting("COUPON_LIMIT_USER", "5/minute", parsers.rate)
    """One user may try to issue a coupon this often. See [rates](#rates)."""

    limit_global: str = setting("COUPON_LIMIT_GLOBAL", "30000/minute", parsers.rate)
    """All users together may try to issue a coupon this often."""

    limit_process: str = setting("COUPON_LIMIT_PROCESS", "", parsers.rate)
    """One web process handles attempts to issue at most this often, for example `5/second`. Unset, there is no such
    limit.
    """

    limit_address: str = setting("COUPON_LIMIT_ADDRESS", "", parsers.rate)
    """Clients with the same address may try to issue a coupon this often; see `COUPON_TRUSTED_PROXIES`. Unset,
    there is no such limit, because mobile carriers put many customers behind one address.
    """

    limit_my_coupons: str = setting("COUPON_LIMIT_MY_COUPONS", "120/minute", parsers.rate)
    """A user may ask for «my coupons» this often, each endpoint of the API and the page counted separately; a
    visitor of the page who is not logged in counts by address.
    """

    limit_login: str = setting("COUPON_LIMIT_LOGIN", "60/minute", parsers.rate)
    """Clients with the same address may log in with the demo login this often."""

    # Deadlines, pools and queues
    deadline_ms: int = setting("COUPON_DEADLINE_MS", "1000", parsers.Integer(100, 60_000))
    """An attempt to issue takes at most this long, in milliseconds, from the moment a web process starts to handle
    it: all waits together, for a connection, a lock, the statement, the commit. Look-ups have the same bound.
    """

    backlog_ms: int = setting("COUPON_BACKLOG_MS", "25", parsers.Integer(0, 60_000))
    """A web process that has been behind for as long as `COUPON_DEADLINE_MS` answers 503 at once to requests that
    have waited longer than this for their turn, in milliseconds. Answers that need no database are still given:
    `SOLD_OUT`, `NOT_OPEN`, look-ups. `0` never refuses.
    """

    pool_issue: int = setting("COUPON_POOL_ISSUE", "2", parsers.Integer(1, 100))
    """Each web process keeps this many connections for issuing coupons. Requests that arrive while one commits are
    batched for the next; more connections only wait for each other at the coupon's stock row.
    """

    pool_read: int = setting("COUPON_POOL_READ", "4", parsers.Integer(1, 100))
    """Each web process keeps this many connections for look-ups."""

    queue_issue: int = setting("COUPON_QUEUE_ISSUE", "500", parsers.Integer(1, 10_000))
    """At most this many attempts to issue wait for their turn in a web process. One more is answered 503 at once."""

    queue_read: int = setting("COUPON_QUEUE_READ", "200", parsers.Integer(1, 10_000))
    """At most this many look-ups wait for a connection in a web process. One more is answered 503 at once."""

    # Circuit breaker
    breaker_window: int = setting("COUPON_BREAKER_WINDOW", "100", parsers.Integer(1, 100_000))
    """The circuit breaker around issuing decides by the results of this many most recent statements."""

    breaker_failure_rate: int = setting("COUPON_BREAKER_FAILURE_RATE", "50", parsers.Integer(1, 100))
    """The circuit opens when this share of the window has failed, in percent."""

    breaker_min_calls: int = setting("COUPON_BREAKER_MIN_CALLS", "100", parsers.Integer(1, 100_000))
    """The circuit stays closed until the window holds this many results. A number larger than the window means the
    window's size.
    """

    breaker_open_s: int = setting("COUPON_BREAKER_OPEN_S", "5", parsers.Integer(1, 3_600))
    """An open circuit refuses all attempts for this many seconds. Then it is half-open."""

    breaker_half_open_calls: int = setting("COUPON_BREAKER_HALF_OPEN_CALLS", "10", parsers.Integer(1, 1_000))
    """A half-open circuit lets this many statements through. Their results decide whether it closes or opens again."""

    breaker_slow_ms: int = setting("COUPON_BREAKER_SLOW_MS", "0", parsers.Integer(0, 60_000))
    """A statement that takes longer than this is slow, in milliseconds. `0` means that none is."""

    breaker_slow_rate: int = setting("COUPON_BREAKER_SLOW_RATE", "100", parsers.Integer(1, 100))
    """The circuit opens when this share of the window was slow, in percent."""

    # Notifications
    notify_channels: tuple[str, ...] = setting("COUPON_NOTIFY_CHANNELS", "file", parsers.channels)
    """Every notification goes to each of these [channels](#channels), comma-separated: `file`, `email`, `webhook`."""

    notify_dir: Path = setting("COUPON_NOTIFY_DIR", "var/notifications", Path)
    """The `file` channel writes its messages into this directory."""

    notify_lease_s: int = setting("COUPON_NOTIFY_LEASE_S", "30", parsers.Integer(1, 3_600))
    """A notification that was put on the queue but not sent is put there again after this many seconds. It must be
    at least twice `COUPON_NOTIFY_TIMEOUT_S`.
    """

    notify_timeout_s: int = setting("COUPON_NOTIFY_TIMEOUT_S", "10", parsers.Integer(1, 60))
    """One try to deliver takes at most this long, in seconds."""

    notify_tries: int = setting("COUPON_NOTIFY_TRIES", "20", parsers.Integer(1, 1_000))
    """A notification that has failed this many times on a channel becomes a dead letter."""

    notify_give_up_h: int = setting("COUPON_NOTIFY_GIVE_UP_H", "24", parsers.Integer(1, 720))
    """A notification that still fails after this many hours becomes a dead letter, however few tries it had."""

    notify_keep_days: int = setting("COUPON_NOTIFY_KEEP_DAYS", "30", parsers.Integer(0, 3_650))
    """The outbox row of a notification that was sent moves into the table `outbox_archive` after this many days."""

    notify_concurrency: int = setting("COUPON_NOTIFY_CONCURRENCY", "4", parsers.Integer(1, 64))
    """One worker process sends this many notifications on one channel at the same time."""

    smtp_url: str = setting("COUPON_SMTP_URL", "", parsers.smtp_url)
    """The `email` channel sends through this mail server, `scheme://[user:password@]host[:port]`: `smtp://` starts
    in plain text and requires STARTTLS (port 587), `smtps://` uses TLS from the start (465), `smtp+plain://` uses
    neither and takes no user (25).
    """

    email_from: str = setting("COUPON_EMAIL_FROM", "", parsers.email)
    """E-mails are sent from this address."""

    email_to: str = setting("COUPON_EMAIL_TO", "{user_id}", parsers.email_of_user)
    """A holder's e-mail address has this form; `{user_id}` stands for the token's `sub`."""

    email_rate: str = setting("COUPON_EMAIL_RATE", "50/second", parsers.rate)
    """One worker process sends e-mails at most this fast. See [rates of channels](#rates-of-channels)."""

    webhook_url: str = setting("COUPON_WEBHOOK_URL", "", parsers.webhook_url)
    """The `webhook` channel posts its events to this URL, `https://…` or `http://…`."""

    webhook_secrets: tuple[str, ...] = setting("COUPON_WEBHOOK_SECRET", "", parsers.webhook_secrets)
    """The events are signed with this secret: `whsec_` and 24 to 64 bytes in base64. To replace it, set both, the
    newest first, separated by a space; events then carry both signatures.
    """

    webhook_rate: str = setting("COUPON_WEBHOOK_RATE", "350/second", parsers.rate)
    """One worker process posts events at most this fast. See [rates of channels](#rates-of-channels)."""

    webhook_private: bool = setting("COUPON_WEBHOOK_PRIVATE", "0", parsers.flag)
    """With `1`, the webhook's host may have an address that is not public."""

    # Time, metrics and logs
    time_zone: zoneinfo.ZoneInfo = setting("COUPON_TIME_ZONE", "Asia/Seoul", parsers.time_zone)
    """Pages and messages show times in this time zone, and commands read times without an offset in it."""

    metrics_dir: Path = setting("COUPON_METRICS_DIR", "var/metrics", Path)
    """The web processes add up their metrics in this directory. Its `*.db` files are removed at every start, so
    each web server needs a directory of its own.
    """

    worker_metrics_port: int = setting("COUPON_WORKER_METRICS_PORT", "", parsers.Integer(1, 65_535))
    """The worker serves its metrics for Prometheus on this port of `COUPON_HOST`. Unset, it serves none."""

    log_level: str = setting("COUPON_LOG_LEVEL", "info", parsers.one_of("debug", "info", "warning", "error"))
    """Messages below this level are not logged: `debug`, `info`, `warning` or `error`."""

    def __post_init__(self) -> None:
        if self.jwt_secret and self.jwt_jwks:
            raise ConfigurationError("COUPON_JWT_SECRET and COUPON_JWT_JWKS: set one of them, not both")
        if self.demo_login and not self.jwt_secret:
            raise ConfigurationError("COUPON_DEMO_LOGIN: needs COUPON_JWT_SECRET, because it signs tokens")

    def require(self, *names: str) -> None:
        """Check that settings are set.

        Args:
            names: attribute names of this class, such as `database_url`.

        Raises:
            ConfigurationError: one is not; the message names its environment variable.
        """
        for name in names:
            if not getattr(self, name):
                raise ConfigurationError(f"{env_name(name)} is not set")

    def require_for_web(self) -> None:
        """Check that everything is set that the web server needs.

        Raises:
            ConfigurationError: something is not; the message names its environment variable.
        """
        self.require("database_url", "redis_url", "secret_key")
        if not self.jwt_secret and not self.jwt_jwks:
            raise ConfigurationError("COUPON_JWT_SECRET or COUPON_JWT_JWKS must be set, to verify tokens")

    def require_for_worker(self) -> None:
        """Check that everything is set that the notification worker needs.

        Raises:
            ConfigurationError: something is not; the message names its environment variable.
        """
        self.require("database_url")
        if self.notify_lease_s < 2 * self.notify_timeout_s:
            raise ConfigurationError("COUPON_NOTIFY_LEASE_S must be at least twice COUPON_NOTIFY_TIMEOUT_S")
        if "email" in self.notify_channels:
            self.require("smtp_url", "email_from")
        if "webhook" in self.notify_channels:
            self.require("webhook_url", "webhook_secrets")
        if self.rq_url:
            return
        self.require("redis_url")
        if redis_url.is_cluster(self.redis_url):
            raise ConfigurationError("COUPON_RQ_URL is not set, and REDIS_URL is a cluster, on which RQ does not run")

    @property
    def queue_url(self) -> str:
        """Address of the Redis on which RQ keeps its queue."""
        return self.rq_url or self.redis_url


def specs() -> tuple[Field[Any], ...]:
    """Return all settings as declared; each `metadata` holds `env`, `default` and `parse`."""
    return fields(Settings)


def make_directory(settings: Settings, name: str) -> Path:
    """Create the directory that a setting names, unless it exists.

    Args:
        settings: all settings.
        name: an attribute such as `notify_dir`.

    Raises:
        ConfigurationError: the directory cannot be created or written to.
    """
    path: Path = getattr(settings, name)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{env_name(name)}: cannot use {path}: {error.strerror}") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise ConfigurationError(f"{env_name(name)}: cannot write to {path}")
    return path


def environ_with(**more: str) -> dict[str, str]:
    """Return this process's environment plus some variables, for a child process."""
    return {**os.environ, **more}


def env_name(attribute: str) -> str:
    """Return the environment variable of a `Settings` attribute."""
    return next(str(spec.metadata["env"]) for spec in specs() if spec.name == attribute)


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read and check all settings.

    Args:
        environ: variables by name; left out, the process's environment with the gaps filled from
            `var/local.env`.

    Raises:
        ConfigurationError: a value does not pass its check, or a `_FILE` cannot be read.
    """
    if environ is None:
        environ = _with_local_servers(os.environ)
    return Settings(**{spec.name: _value(spec.metadata, environ) for spec in specs()})


def _value(declared: Mapping[str, Any], environ: Mapping[str, str]) -> Any:
    env: str = declared["env"]
    raw = _raw_value(env, environ) or declared["default"]
    try:
        return declared["parse"](raw) if raw else ""
    except ValueError as error:
        # A secret must not reach a log.
        shown = "" if "SECRET" in env or "URL" in env else f" (is {raw!r})"
        raise ConfigurationError(f"{env} {error}{shown}") from error


def _raw_value(env: str, environ: Mapping[str, str]) -> str:
    if environ.get(env):
        return environ[env]
    if path := environ.get(f"{env}_FILE"):
        try:
            return Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{env}_FILE: cannot read {path}: {error}") from error
    return ""


def _with_local_servers(environ: Mapping[str, str]) -> dict[str, str]:
    local = read_env_file(LOCAL_ENV_FILE)
    if environ.get("COUPON_JWT_JWKS") or environ.get("COUPON_JWT_JWKS_FILE"):
        for name in ("COUPON_JWT_SECRET", "COUPON_DEMO_LOGIN"):
            local.pop(name, None)
    unset = {k: v for k, v in local.items() if not environ.get(k) and not environ.get(f"{k}_FILE")}
    return {**environ, **unset}


def read_env_file(path: Path) -> dict[str, str]:
    """Return the `NAME=value` lines of a file; none if it does not exist."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
