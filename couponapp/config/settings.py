"""Every setting: its name, default, help text and check. The only reader of the environment.

`load()` is called once at start. A value that does not pass its check stops the start with one
line that names it. A name with `_FILE` appended reads the value from that file (for secrets).
Where `make run` has started servers of its own, their addresses lie in `var/local.env` and fill
in what the environment leaves unset, so that `flask coupons …` finds them.
"""

from __future__ import annotations

import os
import zoneinfo
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from couponapp.config import parsers as values
from couponapp.config import redis_url
from couponapp.errors import ConfigurationError

LOCAL_ENV_FILE = Path("var/local.env")


def setting(env: str, default: str, parse: Callable[[str], Any], help_text: str) -> Any:
    """Declare a setting.

    Args:
        env: the environment variable's name.
        default: what an unset or empty variable means, as it would be written there.
        parse: turns the text into the value, or raises ValueError with what is wrong.
        help_text: one sentence for `docs/settings.md`.
    """
    return field(metadata={"env": env, "default": default, "parse": parse, "help": help_text})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings, checked."""

    port: int = setting("PORT", "8000", values.integer(1, 65535), "Port that the web server listens on.")
    host: str = setting(
        "COUPON_HOST", "127.0.0.1", values.address, "Address that the web server listens on; 0.0.0.0 for all."
    )
    web_processes: int = setting("WEB_CONCURRENCY", "2", values.integer(1, 256), "Number of web processes.")
    database_url: str = setting(
        "DATABASE_URL",
        "",
        values.postgresql_url,
        "PostgreSQL 15 or newer, as a URL: one server, or a primary and its standbys.",
    )
    redis_url: str = setting(
        "REDIS_URL", "", values.redis, "Redis or Valkey, as a URL: one server, behind Sentinels, or a cluster."
    )
    rq_url: str = setting(
        "COUPON_RQ_URL",
        "",
        values.queue,
        "Redis or Valkey of the queue, where it is not that of REDIS_URL; no cluster.",
    )
    secret_key: str = setting(
        "COUPON_SECRET_KEY",
        "",
        values.secret,
        "Signs the pages' session cookie (CSRF token, notices); at least 32 bytes, the same in every process.",
    )
    jwt_secret: str = setting(
        "COUPON_JWT_SECRET", "", values.secret, "Shared secret of HS256 tokens; at least 32 bytes."
    )
    jwt_jwks: str = setting(
        "COUPON_JWT_JWKS",
        "",
        values.text,
        "File or URL of the key set (JWKS) of RS256, ES256 or EdDSA tokens; instead of the secret.",
    )
    jwt_audience: str = setting("COUPON_JWT_AUDIENCE", "coupon", values.text, "Audience that a token must name.")
    jwt_issuer: str = setting("COUPON_JWT_ISSUER", "", values.text, "Issuer that a token must name, where set.")
    limit_user: str = setting("COUPON_LIMIT_USER", "5/minute", values.rate, "Attempts to issue per user.")
    limit_global: str = setting(
        "COUPON_LIMIT_GLOBAL", "30000/minute", values.rate, "Attempts to issue of all users together."
    )
    limit_process: str = setting(
        "COUPON_LIMIT_PROCESS", "", values.rate, "Attempts to issue in one web process; unset: no limit."
    )
    limit_address: str = setting(
        "COUPON_LIMIT_ADDRESS",
        "",
        values.rate,
        "Attempts to issue per client address; unset: no limit, since mobile carriers put many behind one.",
    )
    limit_my_coupons: str = setting(
        "COUPON_LIMIT_MY_COUPONS",
        "120/minute",
        values.rate,
        "Requests per user for «my coupons», API and page together; a visitor who is not logged in counts by address.",
    )
    limit_login: str = setting(
        "COUPON_LIMIT_LOGIN", "60/minute", values.rate, "Log-ins per client address with the demo login."
    )
    deadline_ms: int = setting(
        "COUPON_DEADLINE_MS",
        "1000",
        values.integer(100, 60_000),
        "The most that one issue request may wait, in milliseconds: for a connection, a lock, the statement.",
    )
    pool_issue: int = setting(
        "COUPON_POOL_ISSUE", "2", values.integer(1, 100), "Connections per web process that issue coupons."
    )
    pool_read: int = setting(
        "COUPON_POOL_READ", "4", values.integer(1, 100), "Connections per web process that answer look-ups."
    )
    queue_issue: int = setting(
        "COUPON_QUEUE_ISSUE",
        "500",
        values.integer(1, 10_000),
        "Attempts per web process that may wait for their turn; one more is answered 503 at once.",
    )
    queue_read: int = setting(
        "COUPON_QUEUE_READ",
        "200",
        values.integer(1, 10_000),
        "Look-ups per web process that may wait for a connection; one more is answered 503 at once.",
    )
    backlog_ms: int = setting(
        "COUPON_BACKLOG_MS",
        "25",
        values.integer(0, 60_000),
        "What has waited for its turn for longer is refused, in milliseconds, in a process that is behind for longer "
        "than the deadline; 0: never.",
    )
    client_timeout_s: int = setting(
        "COUPON_CLIENT_TIMEOUT_S",
        "10",
        values.integer(1, 300),
        "Seconds that a client may take to send a request's head, again for its body, and again to take the answer.",
    )
    breaker_window: int = setting(
        "COUPON_BREAKER_WINDOW",
        "100",
        values.integer(1, 100_000),
        "How many of the last calls the circuit breaker looks at.",
    )
    breaker_failure_rate: int = setting(
        "COUPON_BREAKER_FAILURE_RATE", "50", values.integer(1, 100), "Share of failures at which it opens, in percent."
    )
    breaker_min_calls: int = setting(
        "COUPON_BREAKER_MIN_CALLS", "100", values.integer(1, 100_000), "It decides nothing before so many calls."
    )
    breaker_open_s: int = setting(
        "COUPON_BREAKER_OPEN_S", "5", values.integer(1, 3600), "How long it stays open, in seconds."
    )
    breaker_half_open_calls: int = setting(
        "COUPON_BREAKER_HALF_OPEN_CALLS", "10", values.integer(1, 1000), "Calls that it then lets through to decide."
    )
    breaker_slow_ms: int = setting(
        "COUPON_BREAKER_SLOW_MS",
        "0",
        values.integer(0, 60_000),
        "A longer call is slow, in milliseconds; 0: none is.",
    )
    breaker_slow_rate: int = setting(
        "COUPON_BREAKER_SLOW_RATE", "100", values.integer(1, 100), "Share of slow calls at which it opens, in percent."
    )
    trusted_proxies: int = setting(
        "COUPON_TRUSTED_PROXIES", "0", values.integer(0, 10), "Hops of X-Forwarded-For and -Proto that are believed."
    )
    allowed_hosts: tuple[str, ...] = setting(
        "COUPON_ALLOWED_HOSTS",
        "localhost,127.0.0.1,[::1]",
        values.hosts,
        "Host names that requests may name, comma-separated; one that begins with a dot covers its subdomains.",
    )
    demo_login: bool = setting(
        "COUPON_DEMO_LOGIN", "0", values.flag, "1 lets anybody log in as anybody at /login. For demos only."
    )
    cookie_name: str = setting(
        "COUPON_COOKIE_NAME", "coupon_token", values.cookie_name, "Cookie in which the pages find the user's token."
    )
    cookie_secure: bool = setting(
        "COUPON_COOKIE_SECURE", "1", values.flag, "1 sends cookies over HTTPS only; 0 is for trials without TLS."
    )
    time_zone: zoneinfo.ZoneInfo = setting(
        "COUPON_TIME_ZONE", "Asia/Seoul", values.time_zone, "Time zone of pages, messages and times typed without one."
    )
    notify_channels: tuple[str, ...] = setting(
        "COUPON_NOTIFY_CHANNELS", "file", values.channels, "Channels that every notification goes to, comma-separated."
    )
    notify_dir: Path = setting(
        "COUPON_NOTIFY_DIR", "var/notifications", Path, "Directory in which the file channel leaves its messages."
    )
    notify_lease_s: int = setting(
        "COUPON_NOTIFY_LEASE_S",
        "30",
        values.integer(1, 3600),
        "Seconds after which a notification that was handed to RQ, but not sent, is handed over again.",
    )
    notify_tries: int = setting(
        "COUPON_NOTIFY_TRIES",
        "20",
        values.integer(1, 1000),
        "Tries on one channel before a notification is a dead letter.",
    )
    notify_give_up_h: int = setting(
        "COUPON_NOTIFY_GIVE_UP_H",
        "24",
        values.integer(1, 720),
        "Hours after which a notification that fails is a dead letter, however few tries it had.",
    )
    notify_keep_days: int = setting(
        "COUPON_NOTIFY_KEEP_DAYS",
        "30",
        values.integer(0, 3650),
        "Days after which what was sent goes into the archive.",
    )
    notify_timeout_s: int = setting(
        "COUPON_NOTIFY_TIMEOUT_S", "10", values.integer(1, 60), "The most that one try may take, in seconds."
    )
    notify_concurrency: int = setting(
        "COUPON_NOTIFY_CONCURRENCY",
        "4",
        values.integer(1, 64),
        "Notifications that one worker process sends on one channel at once.",
    )
    smtp_url: str = setting(
        "COUPON_SMTP_URL",
        "",
        values.smtp_url,
        "Mail server of the email channel: smtp:// (STARTTLS), smtps:// (TLS) or smtp+plain:// (neither).",
    )
    email_from: str = setting("COUPON_EMAIL_FROM", "", values.email, "Address that e-mails come from.")
    email_to: str = setting(
        "COUPON_EMAIL_TO", "{user_id}", values.email_of_user, "Address of a holder; {user_id} is the token's sub."
    )
    email_rate: str = setting(
        "COUPON_EMAIL_RATE", "50/second", values.rate, "The most e-mails that one worker process sends."
    )
    webhook_url: str = setting(
        "COUPON_WEBHOOK_URL", "", values.webhook_url, "Where the webhook channel posts its events."
    )
    webhook_secrets: tuple[str, ...] = setting(
        "COUPON_WEBHOOK_SECRET",
        "",
        values.webhook_secrets,
        "Signs them: whsec_ and base64 of 24 to 64 bytes; several, to change it, are separated by spaces.",
    )
    webhook_rate: str = setting(
        "COUPON_WEBHOOK_RATE", "350/second", values.rate, "The most events that one worker process posts."
    )
    webhook_private: bool = setting(
        "COUPON_WEBHOOK_PRIVATE", "0", values.flag, "1 lets the webhook lead to addresses that are not public."
    )
    metrics_dir: Path = setting(
        "COUPON_METRICS_DIR", "var/metrics", Path, "Directory that the web processes share to add up their metrics."
    )
    worker_metrics_port: int = setting(
        "COUPON_WORKER_METRICS_PORT",
        "",
        values.integer(1, 65535),
        "Port of COUPON_HOST on which the worker shows its metrics; unset: nowhere.",
    )
    log_level: str = setting(
        "COUPON_LOG_LEVEL",
        "info",
        values.one_of("debug", "info", "warning", "error"),
        "Least severe level that is logged.",
    )

    def __post_init__(self) -> None:
        if self.jwt_secret and self.jwt_jwks:
            raise ConfigurationError("COUPON_JWT_SECRET and COUPON_JWT_JWKS: set one of them, not both")
        if self.demo_login and not self.jwt_secret:
            raise ConfigurationError("COUPON_DEMO_LOGIN: needs COUPON_JWT_SECRET, because it signs tokens")

    def require(self, *names: str) -> None:
        """Stop where a setting that this command needs is unset.

        Args:
            names: attribute names of this class, such as `database_url`.

        Raises:
            ConfigurationError: naming the environment variable.
        """
        for name in names:
            if not getattr(self, name):
                raise ConfigurationError(f"{env_name(name)} is not set")

    def require_for_web(self) -> None:
        """Stop where something is unset that the web server cannot do without.

        Raises:
            ConfigurationError: naming the environment variable.
        """
        self.require("database_url", "redis_url", "secret_key")
        if not self.jwt_secret and not self.jwt_jwks:
            raise ConfigurationError("COUPON_JWT_SECRET or COUPON_JWT_JWKS must be set: who may sign tokens?")

    def require_for_worker(self) -> None:
        """Stop where something is unset that the notification worker cannot do without.

        Raises:
            ConfigurationError: naming the environment variable.
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
        """The Redis on which RQ keeps its queue."""
        return self.rq_url or self.redis_url


def specs() -> tuple[Field[Any], ...]:
    """All settings as declared; `metadata` holds `env`, `default`, `parse` and `help`."""
    return fields(Settings)


def make_directory(settings: Settings, name: str) -> Path:
    """Make the directory that a setting names.

    Args:
        settings: where to look.
        name: an attribute such as `notify_dir`.

    Raises:
        ConfigurationError: it cannot be made or written to.
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
    """This process's environment and more, for a child."""
    return {**os.environ, **more}


def env_name(attribute: str) -> str:
    """The environment variable of a `Settings` attribute."""
    return next(str(spec.metadata["env"]) for spec in specs() if spec.name == attribute)


def load(environ: Mapping[str, str] | None = None, **overrides: str) -> Settings:
    """Read and check all settings.

    Args:
        environ: variables by name; the process's environment, filled up from
            `var/local.env`, when left out.
        overrides: texts by attribute name, which win over the environment.

    Raises:
        ConfigurationError: a value does not pass its check, or a `_FILE` cannot be read.
    """
    if environ is None:
        environ = _with_local_servers(os.environ)
    found: dict[str, Any] = {}
    for spec in specs():
        env = str(spec.metadata["env"])
        raw = overrides.get(spec.name) or _raw_value(env, environ)
        if not raw and not (default := str(spec.metadata["default"])):
            found[spec.name] = ""
            continue
        try:
            found[spec.name] = spec.metadata["parse"](raw or default)
        except ValueError as error:
            # A secret's text must not reach a log.
            shown = "" if "SECRET" in env or "URL" in env else f" (is {raw!r})"
            raise ConfigurationError(f"{env} {error}{shown}") from error
    return Settings(**found)


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
    local = _read_env_file(LOCAL_ENV_FILE)
    if environ.get("COUPON_JWT_JWKS") or environ.get("COUPON_JWT_JWKS_FILE"):
        for name in ("COUPON_JWT_SECRET", "COUPON_DEMO_LOGIN"):
            local.pop(name, None)
    unset = {k: v for k, v in local.items() if not environ.get(k) and not environ.get(f"{k}_FILE")}
    return {**environ, **unset}


def _read_env_file(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
