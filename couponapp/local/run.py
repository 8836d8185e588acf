"""The supervisor behind `make run`."""

from __future__ import annotations

import fcntl
import http.client
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from redis import RedisError

from couponapp.auth import tokens
from couponapp.config import settings
from couponapp.config.settings import LOCAL_ENV_FILE, Settings
from couponapp.errors import ConfigurationError, CouponAppError, Unavailable
from couponapp.local.postgres import EmbeddedPostgres, free_port
from couponapp.local.processes import Child, end_orphans
from couponapp.local.valkey import EmbeddedValkey
from couponapp.planning import coupons
from couponapp.signals import StopSignal
from couponapp.storage import migrations
from couponapp.storage.pool import Pool, Timeouts
from couponapp.storage.redis import connect

VAR = LOCAL_ENV_FILE.parent
RUN_DIR = VAR / "run"
SECRETS_FILE = VAR / "secrets.env"
READY_TIMEOUT_S = 30.0
REDIS_TIMEOUT_S = 3.0
# With PostgreSQL's 3 s and Valkey's 1 s everything ends within 10 s.
END_WEB_TIMEOUT_S = 5.0
MAX_RESTARTS = 5
RESTART_WINDOW_S = 60.0
DEMO_NAME = "첫 구매 감사 5,000원 쿠폰"
DEMO_TOTAL = 1_000
DEMO_OPEN_S = 30 * 86_400.0
CURL_TOKEN_TTL_S = 24 * 3600


def main() -> int:
    """Run everything until Ctrl-C or TERM; returns the exit code."""
    stop = StopSignal(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    os.umask(0o077)  # data, messages and logs are nobody else's business
    try:
        with _only_one(), ExitStack() as stack:
            return _run(stop, stack)
    except CouponAppError as error:
        print(f"couponapp: {error}", file=sys.stderr)
        return 1


def _run(stop: StopSignal, stack: ExitStack) -> int:
    if ended := end_orphans(RUN_DIR):
        _say(f"ended what an earlier run left behind: {', '.join(ended)}")
    secret = _secrets()
    chosen = _chosen_settings(secret)
    config = settings.load(chosen)
    _check_port(config)
    _check_directories(config)
    if config.jwt_jwks:
        tokens.verifier(config)  # a key set that cannot be used is one line here, not many of gunicorn's
    servers = _start_servers(config, secret, stack)
    chosen = {**chosen, **{env: server.url for env, server in servers.items()}}
    config = settings.load(chosen)
    config.require_for_worker()
    _prepare_database(config)
    stack.enter_context(_env_file(chosen))
    if stop.is_set():
        return 0
    services = Services({**os.environ, **chosen}, list(servers.values()))
    stack.callback(services.end)
    services.start()
    if not _wait_until_ready(config, services, stop):
        return 0
    _greet(config)
    return services.watch(stop)


Server = EmbeddedPostgres | EmbeddedValkey


class Services:
    """gunicorn and the notification worker, and an eye on the servers that they need."""

    COMMANDS: Mapping[str, list[str]] = {
        "web": [sys.executable, "-m", "gunicorn"],
        # All share one machine here: who waits for a coupon goes before who waits for a message.
        "worker": ["nice", "-n", "10", sys.executable, "-m", "couponapp.worker"],
    }

    def __init__(self, environ: Mapping[str, str], servers: list[Server]) -> None:
        """Keep what they are started with.

        Args:
            environ: their whole environment.
            servers: the running servers of our own.
        """
        self._environ = environ
        self._servers = servers
        self._children: dict[str, Child] = {}
        self._restarts: list[float] = []

    def start(self) -> None:
        """Start both."""
        for name in self.COMMANDS:
            self._start(name)

    def check(self) -> None:
        """Stop the start where one of them ended at once.

        Raises:
            ConfigurationError: it has said why on standard error.
        """
        for name, child in self._children.items():
            if child.process.poll() is not None:
                raise ConfigurationError(f"{name} ended with {child.process.returncode}")

    def watch(self, stop: StopSignal) -> int:
        """Start again what dies, until told to stop or until it dies too often."""
        while not stop.wait(0.5):
            for server in self._servers:
                if server.child is not None and (code := server.child.process.poll()) is not None:
                    self._count_restart(server.child.name, code)
                    server.start(RUN_DIR)
            for name, child in list(self._children.items()):
                if (code := child.process.poll()) is not None:
                    self._count_restart(name, code)
                    self._start(name)
        return 0

    def end(self) -> None:
        """End both at the same time."""
        for child in self._children.values():
            child.ask_to_end()
        give_up_s = time.monotonic() + END_WEB_TIMEOUT_S
        for child in self._children.values():
            child.wait_or_kill(max(0.1, give_up_s - time.monotonic()))

    def _count_restart(self, name: str, code: int) -> None:
        now = time.monotonic()
        self._restarts = [t for t in self._restarts if now - t < RESTART_WINDOW_S] + [now]
        if len(self._restarts) > MAX_RESTARTS:
            raise ConfigurationError(f"{name} ends again and again (last with {code})")
        _say(f"{name} ended with {code}; starting it again")

    def _start(self, name: str) -> None:
        self._children[name] = Child(name, RUN_DIR, self.COMMANDS[name], environ=self._environ)


@contextmanager
def _only_one() -> Iterator[None]:
    RUN_DIR.mkdir(parents=True, exist_ok=True)
    with open(RUN_DIR / "lock", "a+") as lock:
        try:
            # The kernel releases it with this process, however that ends.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise ConfigurationError(f"is already running here (pid {lock.read().strip()})") from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _secrets() -> dict[str, str]:
    """Passwords and signing secrets of this directory, made at the first start."""
    try:
        lines = SECRETS_FILE.read_text().splitlines()
    except FileNotFoundError:
        lines = []
    found = dict(line.split("=", 1) for line in lines)
    for name in ("COUPON_JWT_SECRET", "COUPON_SECRET_KEY", "POSTGRES_PASSWORD", "VALKEY_PASSWORD"):
        found.setdefault(name, secrets.token_hex(32))
    _write_private(SECRETS_FILE, found)
    return found


def _chosen_settings(secret: Mapping[str, str]) -> dict[str, str]:
    """The environment, filled up with what a trial on one machine wants."""
    defaults = {"COUPON_SECRET_KEY": secret["COUPON_SECRET_KEY"], "COUPON_COOKIE_SECURE": "0"}
    if not _is_set("COUPON_JWT_JWKS"):
        defaults["COUPON_JWT_SECRET"] = secret["COUPON_JWT_SECRET"]
        defaults["COUPON_DEMO_LOGIN"] = "1"
    names = [str(spec.metadata["env"]) for spec in settings.specs()]
    given = {name: os.environ[name] for name in os.environ if name.removesuffix("_FILE") in names and os.environ[name]}
    return {**{name: value for name, value in defaults.items() if not _is_set(name)}, **given}


def _is_set(name: str) -> bool:
    return bool(os.environ.get(name) or os.environ.get(f"{name}_FILE"))


def _check_port(config: Settings) -> None:
    try:
        with socket.create_server((config.host, config.port), backlog=1):
            return
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise ConfigurationError(
            f"PORT {config.port} on {config.host} cannot be used: {reason}; PORT=… chooses another"
        ) from error


def _check_directories(config: Settings) -> None:
    for name in ("notify_dir", "metrics_dir"):
        settings.make_directory(config, name)


def _start_servers(config: Settings, secret: Mapping[str, str], stack: ExitStack) -> dict[str, Server]:
    """Start a server of our own for each address that is not set; by the variable it stands for."""
    started: dict[str, Server] = {}
    if not config.database_url:
        _say("starting PostgreSQL")
        postgres = EmbeddedPostgres(VAR / "postgres", password=secret["POSTGRES_PASSWORD"], port=free_port())
        stack.callback(postgres.end)
        postgres.start(RUN_DIR)
        started["DATABASE_URL"] = postgres
    if not config.redis_url:
        _say("starting Valkey")
        valkey = EmbeddedValkey(VAR / "valkey", password=secret["VALKEY_PASSWORD"], port=free_port())
        stack.callback(valkey.end)
        valkey.start(RUN_DIR)
        started["REDIS_URL"] = valkey
    else:
        _check_redis("REDIS_URL", config.redis_url)
    if config.rq_url:
        _check_redis("COUPON_RQ_URL", config.rq_url)
    return started


def _check_redis(name: str, url: str) -> None:
    try:
        connect(url, timeout_s=REDIS_TIMEOUT_S).ping()
    except RedisError as error:
        raise ConfigurationError(f"{name}: cannot be reached: {error}") from error


def _prepare_database(config: Settings) -> None:
    try:
        for migration in migrations.migrate(config.database_url):
            _say(f"migrated to {migration.version:04}_{migration.name}")
    except Unavailable as error:
        reason = " ".join(str(error).split())
        raise ConfigurationError(f"DATABASE_URL: cannot be reached: {reason}") from error
    pool = Pool(config.database_url, name="local", max_size=1, timeouts=Timeouts.within(10_000))
    try:
        if not coupons.list_all(pool):
            coupons.create(pool, name=DEMO_NAME, total=DEMO_TOTAL, opens_at=0.0, closes_at=DEMO_OPEN_S)
            _say(f"created a demo coupon of {DEMO_TOTAL:,} pieces")
    finally:
        pool.close()


@contextmanager
def _env_file(chosen: Mapping[str, str]) -> Iterator[None]:
    """Lets `flask …` in another terminal find the servers while they run."""
    _write_private(LOCAL_ENV_FILE, chosen)
    try:
        yield
    finally:
        LOCAL_ENV_FILE.unlink(missing_ok=True)


def _write_private(path: Path, values: Mapping[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    draft.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    draft.replace(path)


def _wait_until_ready(config: Settings, services: Services, stop: StopSignal) -> bool:
    give_up_s = time.monotonic() + READY_TIMEOUT_S
    while not stop.is_set():
        services.check()
        if _is_ready(config):
            return True
        if time.monotonic() > give_up_s:
            raise ConfigurationError(f"/readyz is not green after {READY_TIMEOUT_S:.0f} s")
        stop.wait(0.1)
    return False


def _is_ready(config: Settings) -> bool:
    connection = http.client.HTTPConnection(_reachable_host(config), config.port, timeout=2)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _reachable_host(config: Settings) -> str:
    return "127.0.0.1" if config.host == "0.0.0.0" else config.host  # noqa: S104  # compared, not bound


def _greet(config: Settings) -> None:
    host = _reachable_host(config)
    address = f"http://{'localhost' if host == '127.0.0.1' else host}:{config.port}"
    pool = Pool(config.database_url, name="local", max_size=1, timeouts=Timeouts.within(10_000))
    open_now = coupons.list_open(pool)
    pool.close()
    lines = ["", f"  couponapp is ready: {address}", ""]
    if config.demo_login and open_now:
        user = f"user-{secrets.token_hex(3)}"
        token = tokens.sign(config, user, ttl_s=CURL_TOKEN_TTL_S)
        lines += [
            f"  Get a coupon as «{user}»:",
            f"  curl -X POST -H 'Authorization: Bearer {token}' {address}/api/v1/coupons/{open_now[-1]['id']}/issue",
            "",
        ]
    lines += [
        f"  Notifications appear in {config.notify_dir.resolve()}",
        "  Operate with .venv/bin/flask coupons --help; check with .venv/bin/flask coupons verify",
        "  Ctrl-C ends everything; the data stays.",
        "",
    ]
    print("\n".join(lines), flush=True)


def _say(text: str) -> None:
    print(f"couponapp: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
