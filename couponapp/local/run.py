"""`make run`: the whole service on one machine, with a PostgreSQL and a Valkey of its own where none is set."""

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
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from redis import RedisError

from couponapp.auth import tokens
from couponapp.config import settings
from couponapp.config.settings import LOCAL_ENV_FILE, Settings
from couponapp.errors import ConfigurationError, CouponAppError, Unavailable
from couponapp.local.embedded import EmbeddedServer
from couponapp.local.postgres import EmbeddedPostgres, free_port
from couponapp.local.processes import end_orphans
from couponapp.local.supervisor import Supervisor, report
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
DEMO_NAME = "첫 구매 감사 5,000원 쿠폰"
DEMO_TOTAL = 1_000
DEMO_OPEN_S = 30 * 86_400.0
CURL_TOKEN_TTL_S = 24 * 3600


def main() -> int:
    """Run the service until Ctrl-C or TERM; return the exit code."""
    stop = StopSignal(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    os.umask(0o077)  # data, messages and logs are private
    try:
        with _lock(), ExitStack() as stack:
            _run(stop, stack)
    except CouponAppError as error:
        print(f"couponapp: {error}", file=sys.stderr)
        return 1
    return 0


def _run(stop: StopSignal, stack: ExitStack) -> None:
    if ended := end_orphans(RUN_DIR):
        report(f"ended what an earlier run left behind: {', '.join(ended)}")
    secret = _secrets()
    chosen = _chosen_settings(secret)
    config = settings.load(chosen)
    _check_port(config)
    for name in ("notify_dir", "metrics_dir"):
        settings.make_directory(config, name)
    if config.jwt_jwks:
        tokens.verifier(config)  # reports a bad key set once, before each of gunicorn's processes does
    servers = _start_servers(config, secret, stack)
    chosen |= {env: server.url for env, server in servers.items()}
    config = settings.load(chosen)
    config.require_for_worker()
    coupon_id = _prepare_database(config)
    # While the service runs, for `flask …` in another terminal.
    stack.callback(LOCAL_ENV_FILE.unlink, missing_ok=True)
    _write_env_file(LOCAL_ENV_FILE, chosen)
    if stop.is_set():
        return
    supervisor = Supervisor(RUN_DIR, {**os.environ, **chosen}, list(servers.values()))
    stack.callback(supervisor.end)
    supervisor.start()
    if _wait_until_ready(config, supervisor, stop):
        _greet(config, coupon_id)
        supervisor.run(stop)


@contextmanager
def _lock() -> Iterator[None]:
    """Hold the lock of this directory, in which only one service may run."""
    RUN_DIR.mkdir(parents=True, exist_ok=True)
    with open(RUN_DIR / "lock", "a+") as lock:
        try:
            # The kernel releases it when this process ends, however it ends.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise ConfigurationError(f"is already running here (pid {lock.read().strip()})") from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _secrets() -> dict[str, str]:
    """Return this directory's passwords and signing secrets, which the first start generates."""
    found = settings.read_env_file(SECRETS_FILE)
    for name in ("COUPON_JWT_SECRET", "COUPON_SECRET_KEY", "POSTGRES_PASSWORD", "VALKEY_PASSWORD"):
        found.setdefault(name, secrets.token_hex(32))
    _write_env_file(SECRETS_FILE, found)
    return found


def _chosen_settings(secret: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of the environment, and those of a trial on one machine where it sets none."""
    defaults = {"COUPON_SECRET_KEY": secret["COUPON_SECRET_KEY"], "COUPON_COOKIE_SECURE": "0"}
    if not _is_set("COUPON_JWT_JWKS"):
        defaults |= {"COUPON_JWT_SECRET": secret["COUPON_JWT_SECRET"], "COUPON_DEMO_LOGIN": "1"}
    names = [str(spec.metadata["env"]) for spec in settings.specs()]
    given = {name: value for name, value in os.environ.items() if name.removesuffix("_FILE") in names and value}
    return {**{name: value for name, value in defaults.items() if not _is_set(name)}, **given}


def _is_set(name: str) -> bool:
    return bool(os.environ.get(name) or os.environ.get(f"{name}_FILE"))


def _check_port(config: Settings) -> None:
    try:
        socket.create_server((config.host, config.port)).close()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise ConfigurationError(
            f"PORT {config.port} on {config.host} cannot be used: {reason}; PORT=… chooses another"
        ) from error


def _start_servers(config: Settings, secret: Mapping[str, str], stack: ExitStack) -> dict[str, EmbeddedServer]:
    """Start a server of our own for each address that is not set; return them by its environment variable."""
    servers: dict[str, EmbeddedServer] = {}
    if not config.database_url:
        report("starting PostgreSQL")
        postgres = EmbeddedPostgres(VAR / "postgres", password=secret["POSTGRES_PASSWORD"], port=free_port())
        servers["DATABASE_URL"] = stack.enter_context(postgres.running(RUN_DIR))
    if not config.redis_url:
        report("starting Valkey")
        valkey = EmbeddedValkey(VAR / "valkey", password=secret["VALKEY_PASSWORD"], port=free_port())
        servers["REDIS_URL"] = stack.enter_context(valkey.running(RUN_DIR))
    for env, url in (("REDIS_URL", config.redis_url), ("COUPON_RQ_URL", config.rq_url)):
        try:
            if url:
                connect(url, timeout_s=REDIS_TIMEOUT_S).ping()
        except RedisError as error:
            raise ConfigurationError(f"{env}: cannot be reached: {error}") from error
    return servers


def _prepare_database(config: Settings) -> int | None:
    """Apply the migrations, create the demo coupon if there is no coupon; return the newest open coupon's id."""
    try:
        for migration in migrations.migrate(config.database_url):
            report(f"migrated to {migration.version:04}_{migration.name}")
    except Unavailable as error:
        reason = " ".join(str(error).split())
        raise ConfigurationError(f"DATABASE_URL: cannot be reached: {reason}") from error
    with closing(Pool(config.database_url, name="local", max_size=1, timeouts=Timeouts.within(10_000))) as pool:
        if not coupons.list_all(pool):
            coupons.create(pool, name=DEMO_NAME, total=DEMO_TOTAL, opens_at=0.0, closes_at=DEMO_OPEN_S)
            report(f"created a demo coupon of {DEMO_TOTAL:,} pieces")
        open_coupons = coupons.list_open(pool)
        return int(open_coupons[-1]["id"]) if open_coupons else None


def _write_env_file(path: Path, values: Mapping[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    draft.write_text("".join(f"{name}={value}\n" for name, value in values.items()), encoding="utf-8")
    draft.replace(path)


def _wait_until_ready(config: Settings, supervisor: Supervisor, stop: StopSignal) -> bool:
    give_up_s = time.monotonic() + READY_TIMEOUT_S
    while not stop.wait(0.1):
        supervisor.check()
        if _is_ready(config):
            return True
        if time.monotonic() > give_up_s:
            raise ConfigurationError(f"/readyz is not green after {READY_TIMEOUT_S:.0f} s")
    return False


def _is_ready(config: Settings) -> bool:
    with closing(http.client.HTTPConnection(_reachable_host(config), config.port, timeout=2)) as connection:
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False


def _reachable_host(config: Settings) -> str:
    return "127.0.0.1" if config.host == "0.0.0.0" else config.host  # noqa: S104  # compared, not bound


def _greet(config: Settings, coupon_id: int | None) -> None:
    host = _reachable_host(config)
    address = f"http://{'localhost' if host == '127.0.0.1' else host}:{config.port}"
    lines = ["", f"  couponapp is ready: {address}", ""]
    if config.demo_login and coupon_id is not None:
        user = f"user-{secrets.token_hex(3)}"
        token = tokens.sign(config, user, ttl_s=CURL_TOKEN_TTL_S)
        lines += [
            f"  Get a coupon as «{user}»:",
            f"  curl -X POST -H 'Authorization: Bearer {token}' {address}/api/v1/coupons/{coupon_id}/issue",
            "",
        ]
    lines += [
        f"  Notifications appear in {config.notify_dir.resolve()}",
        "  Operate with .venv/bin/flask coupons --help; check with .venv/bin/flask coupons verify",
        "  Ctrl-C ends everything; the data stays.",
        "",
    ]
    print("\n".join(lines), flush=True)


if __name__ == "__main__":
    sys.exit(main())
