"""The settings: each has a default, a help text and a check, and is refused in one line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from couponapp.config import settings
from couponapp.config.document import read_help_texts
from couponapp.errors import ConfigurationError
from couponapp.local.postgres import free_port
from tests.support.servers import JWT_SECRET, ROOT, SECRET_KEY, service_environ

SPECS = {str(spec.metadata["env"]): spec for spec in settings.specs()}
HELP_TEXTS = read_help_texts()
SECRETS = ("COUPON_SECRET_KEY", "COUPON_JWT_SECRET")


def refusal(**environ: str) -> str:
    """The one line in which the settings are refused."""
    with pytest.raises(ConfigurationError) as error:
        settings.load(environ).require_for_web()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", SPECS)
def test_every_setting_has_a_default_that_passes_its_own_check_and_a_help_text(name: str) -> None:
    metadata = SPECS[name].metadata
    assert isinstance(metadata["default"], str)
    if metadata["default"]:
        metadata["parse"](metadata["default"])
    assert re.fullmatch(r"[A-Z0-9].{10,}\.", HELP_TEXTS[SPECS[name].name], re.DOTALL)


def test_every_name_is_given_once() -> None:
    assert len(SPECS) == len(settings.specs())


def test_only_the_settings_read_the_environment() -> None:
    sources = [path for path in (ROOT / "couponapp").rglob("*.py") if "local" not in path.parts]
    readers = [path.name for path in sources if re.search(r"os\.(environ|getenv)", path.read_text(encoding="utf-8"))]
    assert readers == ["settings.py"]


# Values


def test_an_unset_or_empty_variable_means_the_default() -> None:
    unset, empty = settings.load({}), settings.load(dict.fromkeys(SPECS, ""))
    assert unset == empty
    assert (unset.port, unset.limit_user, unset.jwt_audience, unset.demo_login) == (8000, "5/minute", "coupon", False)
    assert unset.allowed_hosts == ("localhost", "127.0.0.1", "[::1]")


BAD_VALUES: dict[str, list[str]] = {
    "PORT": ["0", "65536", "-1", "+1", "80x", "８０", "8_0", "1e3", " 80", "9" * 20],
    "COUPON_HOST": ["a b", "a\nb", "é", "http://x/"],
    "WEB_CONCURRENCY": ["0", "257", "two"],
    "DATABASE_URL": [
        *("x", "mysql://host/db", "postgresql:host", "postgresql://host:port/db", "//host", "http://["),
        *("postgresql://one:1,two:port/db?target_session_attrs=read-write", "postgresql://one,/db"),
        *("postgresql://one:1,two:2/db", "postgresql://one,two/db?target_session_attrs=any", "mysql://one,two/db"),
    ],
    "REDIS_URL": [
        *("localhost:6379", "http://host", "redis://host:99999/0"),
        *(
            "redis+sentinel://host:1",
            "redis+sentinel://host:1/",
            "redis+sentinel://host/name",
            "redis+sentinel:///name",
        ),
        *("redis+sentinel://host:0/name", "redis+sentinel://host:99999/name", "redis+sentinel://host:1,/name"),
        *("redis+sentinel://host:1/a name", "redis+sentinel://host:1/name/x", "redis+sentinel://host:1/name/0/1"),
        *("redis+sentinel://host:1/name?db=3", "redis+sentinel://user@host:1/name", "redis+sentinel:host:1/name"),
        *("redis+cluster://host", "redis+cluster://host:1/3", "redis+cluster://host:1/?x=1", "REDIS+CLUSTER://host:1"),
    ],
    "COUPON_RQ_URL": ["localhost:6379", "redis+sentinel://host:1", "redis+cluster://host:1/"],
    "COUPON_SECRET_KEY": ["x", "x" * 31],
    "COUPON_JWT_SECRET": ["x", "x" * 31, "가" * 10],
    "COUPON_LIMIT_USER": ["5", "five/minute", "0/minute", "-1/minute", "5/fortnight", "5/minute;9/hour"],
    "COUPON_LIMIT_GLOBAL": ["unlimited", "0/second"],
    "COUPON_LIMIT_PROCESS": ["5/", "/minute", "1.5/second"],
    "COUPON_LIMIT_ADDRESS": ["100", "0/minute"],
    "COUPON_LIMIT_MY_COUPONS": ["100", "0/minute"],
    "COUPON_LIMIT_LOGIN": ["100", "0/minute"],
    "COUPON_DEADLINE_MS": ["99", "60001", "1s"],
    "COUPON_BACKLOG_MS": ["-1", "60001", "50ms"],
    "COUPON_CLIENT_TIMEOUT_S": ["0", "301", "10s"],
    "COUPON_BREAKER_WINDOW": ["0", "100001"],
    "COUPON_BREAKER_FAILURE_RATE": ["0", "101", "50%"],
    "COUPON_BREAKER_MIN_CALLS": ["0", "100001"],
    "COUPON_BREAKER_OPEN_S": ["0", "3601", "5s"],
    "COUPON_BREAKER_HALF_OPEN_CALLS": ["0", "1001"],
    "COUPON_BREAKER_SLOW_MS": ["-1", "60001"],
    "COUPON_BREAKER_SLOW_RATE": ["0", "101"],
    "COUPON_POOL_ISSUE": ["0", "101"],
    "COUPON_QUEUE_ISSUE": ["0", "10001"],
    "COUPON_QUEUE_READ": ["0", "10001"],
    "COUPON_POOL_READ": ["0", "x"],
    "COUPON_TRUSTED_PROXIES": ["-1", "11", "*"],
    "COUPON_ALLOWED_HOSTS": [",", ".", "*", "http://host", "host:80", "a b", "host/"],
    "COUPON_DEMO_LOGIN": ["true", "yes", "2"],
    "COUPON_COOKIE_NAME": ["a b", "a;b", "a=b", "é", "a\r\nb", "x" * 65, "coupon_session"],
    "COUPON_COOKIE_SECURE": ["on", "no"],
    "COUPON_TIME_ZONE": ["Mars/Olympus", "KST+9", "../../etc/passwd", "/etc/passwd", "\0"],
    "COUPON_NOTIFY_CHANNELS": [",", "file,", "pigeon", "file,file", "FILE"],
    "COUPON_NOTIFY_LEASE_S": ["0", "3601", "1m"],
    "COUPON_NOTIFY_TRIES": ["0", "1001"],
    "COUPON_NOTIFY_GIVE_UP_H": ["0", "721", "1d"],
    "COUPON_NOTIFY_KEEP_DAYS": ["-1", "3651", "30d"],
    "COUPON_NOTIFY_TIMEOUT_S": ["0", "61"],
    "COUPON_NOTIFY_CONCURRENCY": ["0", "65"],
    "COUPON_SMTP_URL": ["mail", "http://mail", "smtp://", "smtp://mail/path", "smtp://mail?x", "smtp+plain://u:p@mail"],
    "COUPON_EMAIL_FROM": ["shop", "a@b", "a b@shop.example", "Shop <a@shop.example>", "a@shop.example\nBcc: x@y.z"],
    "COUPON_EMAIL_TO": ["minji@shop.example", "a@{user_id}.example", "{user_id}@", "{user_id}{user_id}@shop.example"],
    "COUPON_EMAIL_RATE": ["fast", "0/second"],
    "COUPON_WEBHOOK_URL": [
        "shop",
        "ftp://shop/",
        "https://",
        "https:///x",
        "https://u:p@shop/",
        "https://shop/é",
        "https://a b/",
    ],
    "COUPON_WEBHOOK_SECRET": [
        "secret",
        "whsec_",
        "whsec_c2hvcnQ=",
        "whsec_" + 22 * "AAAA",
        "whsec_" + 8 * "AAAA" + " x",
    ],
    "COUPON_WEBHOOK_RATE": ["fast", "0/second"],
    "COUPON_WEBHOOK_PRIVATE": ["yes"],
    "COUPON_WORKER_METRICS_PORT": ["0", "65536", "on"],
    "COUPON_LOG_LEVEL": ["verbose", "INFO", "10"],
}


@pytest.mark.parametrize("name", BAD_VALUES)
def test_a_bad_value_is_one_line_that_names_the_setting(name: str) -> None:
    for value in BAD_VALUES[name]:
        assert refusal(**{name: value}).startswith(f"{name} "), value


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://host/db",
        "postgres://user:p%40ss@[::1]:5433/db?sslmode=require",
        "postgresql://user:pass@one:5432,two:5433/db?target_session_attrs=read-write",
        "postgresql://one,[::1]:5433,127.0.0.1/db?connect_timeout=3&target_session_attrs=primary",
    ],
)
def test_postgresql_may_be_one_server_or_several_of_which_one_accepts_writes(address: str) -> None:
    assert settings.load({"DATABASE_URL": address}).database_url == address


def test_every_setting_that_has_a_check_is_among_these() -> None:
    anything_goes = {name for name, spec in SPECS.items() if spec.metadata["parse"] in (str, Path)}
    assert set(SPECS) - anything_goes <= set(BAD_VALUES)


def test_a_setting_that_the_web_server_lacks_is_named() -> None:
    complete = service_environ("postgresql://host/db", "redis://host/0", COUPON_DEMO_LOGIN="0")
    settings.load(complete).require_for_web()
    for name in ("DATABASE_URL", "REDIS_URL", "COUPON_SECRET_KEY", "COUPON_JWT_SECRET"):
        assert name in refusal(**{**complete, name: ""})


def test_settings_that_exclude_or_need_each_other_are_named() -> None:
    assert "COUPON_JWT_JWKS" in refusal(COUPON_JWT_SECRET=JWT_SECRET, COUPON_JWT_JWKS="keys.json")
    assert "COUPON_DEMO_LOGIN" in refusal(COUPON_DEMO_LOGIN="1")


def test_a_setting_that_the_worker_lacks_is_named() -> None:
    complete = {"DATABASE_URL": "postgresql://host/db", "REDIS_URL": "redis://host/0"}
    for good in (complete, {**complete, "REDIS_URL": "", "COUPON_RQ_URL": "redis://host/1"}):
        settings.load(good).require_for_worker()
    for name in complete:
        with pytest.raises(ConfigurationError, match=f"{name} is not set"):
            settings.load({**complete, name: ""}).require_for_worker()


def test_a_setting_that_a_channel_lacks_is_named() -> None:
    worker = {"DATABASE_URL": "postgresql://host/db", "REDIS_URL": "redis://host/0"}
    needs = {
        "email": {"COUPON_SMTP_URL": "smtps://mail.example", "COUPON_EMAIL_FROM": "coupons@shop.example"},
        "webhook": {"COUPON_WEBHOOK_URL": "https://shop.example/", "COUPON_WEBHOOK_SECRET": "whsec_" + 8 * "AAAA"},
    }
    for channel, complete in needs.items():
        given = {**worker, "COUPON_NOTIFY_CHANNELS": f"file,{channel}", **complete}
        settings.load(given).require_for_worker()
        for name in complete:
            with pytest.raises(ConfigurationError, match=f"{name} is not set"):
                settings.load({**given, name: ""}).require_for_worker()


def test_the_worker_prefers_rqs_own_redis_to_the_common_one() -> None:
    common, own = "redis://host/0", "redis+sentinel://host:1/name"
    assert settings.load({"REDIS_URL": common}).queue_url == common
    assert settings.load({"REDIS_URL": common, "COUPON_RQ_URL": own}).queue_url == own


def test_the_worker_does_not_start_on_a_cluster() -> None:
    cluster = {"DATABASE_URL": "postgresql://host/db", "REDIS_URL": "redis+cluster://host:1/"}
    with pytest.raises(ConfigurationError, match=r"^COUPON_RQ_URL is not set, and REDIS_URL is a cluster"):
        settings.load(cluster).require_for_worker()
    settings.load({**cluster, "COUPON_RQ_URL": "redis://host/0"}).require_for_worker()


def test_a_lease_shorter_than_two_tries_stops_the_worker() -> None:
    complete = {"DATABASE_URL": "postgresql://host/db", "REDIS_URL": "redis://host/0", "COUPON_NOTIFY_LEASE_S": "19"}
    with pytest.raises(ConfigurationError, match=r"^COUPON_NOTIFY_LEASE_S must be at least twice"):
        settings.load(complete).require_for_worker()
    settings.load({**complete, "COUPON_NOTIFY_TIMEOUT_S": "9"}).require_for_worker()


# Secrets


@pytest.mark.parametrize("name", [*SECRETS, "DATABASE_URL"])
def test_a_value_can_be_read_from_a_file(tmp_path: Path, name: str) -> None:
    value = "postgresql://user:password@host/db" if name == "DATABASE_URL" else "secret-of-at-least-32-bytes-in-all"
    (tmp_path / "secret").write_text(f"{value}\n", encoding="utf-8")
    loaded = settings.load({f"{name}_FILE": str(tmp_path / "secret")})
    assert getattr(loaded, SPECS[name].name) == value


def test_an_unreadable_file_is_named_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for path in (tmp_path, tmp_path / "missing", tmp_path / "binary"):
        assert refusal(COUPON_JWT_SECRET_FILE=str(path)).startswith(f"COUPON_JWT_SECRET_FILE: cannot read {path}")


def test_a_file_is_checked_like_the_value_itself(tmp_path: Path) -> None:
    (tmp_path / "short").write_text("hush\n", encoding="utf-8")
    line = refusal(COUPON_JWT_SECRET_FILE=str(tmp_path / "short"))
    assert line == "COUPON_JWT_SECRET must have at least 32 bytes"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("COUPON_SECRET_KEY", "hush"),
        ("COUPON_JWT_SECRET", "hush"),
        ("DATABASE_URL", "hush"),
        ("DATABASE_URL", "mysql://user:hush@host/db"),
        ("DATABASE_URL", "postgresql://user:hush#more@host/db"),
        ("DATABASE_URL", "postgresql://user:hush℀@host/db"),
        ("DATABASE_URL", "postgresql://user:hush[@host/db"),
        ("REDIS_URL", "redis://:hush/more@host/0"),
        ("REDIS_URL", "http://:hush@host/0"),
        ("REDIS_URL", "redis+sentinel://:hush/more@host:1/name"),
        ("REDIS_URL", "redis+sentinel://:hush@host/name"),
        ("REDIS_URL", "redis+sentinel://host:1/name?password=hush"),
        ("REDIS_URL", "redis+cluster://:hush#more@host:1"),
        ("COUPON_RQ_URL", "redis+cluster://:hush@host:1"),
        ("COUPON_SMTP_URL", "smtp+plain://user:hush@mail"),
        ("COUPON_SMTP_URL", "smtp://user:hush/more@mail"),
        ("COUPON_WEBHOOK_URL", "https://user:hush@shop"),
        ("COUPON_WEBHOOK_SECRET", "whsec_hush"),
    ],
)
def test_a_secret_never_appears_in_the_error(name: str, value: str) -> None:
    assert "hush" not in refusal(**{name: value})


def test_a_value_that_is_not_secret_is_shown_in_the_error() -> None:
    assert "five" in refusal(PORT="five")


# A start


def gunicorn(**changes: str) -> subprocess.CompletedProcess[str]:
    """A start that must end by itself."""
    environ = service_environ("postgresql://127.0.0.1:1/none", "redis://127.0.0.1:1/0", **changes)
    command = [sys.executable, "-m", "gunicorn"]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False)


def test_gunicorn_does_not_start_with_a_bad_value_and_says_so_in_one_line() -> None:
    done = gunicorn(COUPON_LIMIT_USER="many")
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr == "couponapp: COUPON_LIMIT_USER must be a rate such as 5/minute (is 'many')\n"


def test_gunicorn_ends_when_its_processes_find_no_key_set(tmp_path: Path) -> None:
    """Only they read it; gunicorn must not go on starting new ones for ever."""
    done = gunicorn(
        COUPON_JWT_SECRET="",
        COUPON_DEMO_LOGIN="0",
        COUPON_JWT_JWKS=str(tmp_path / "missing.json"),
        COUPON_METRICS_DIR=str(tmp_path / "metrics"),
        PORT=str(free_port()),
        WEB_CONCURRENCY="1",
    )
    assert done.returncode != 0
    assert f"couponapp: COUPON_JWT_JWKS: cannot use {tmp_path / 'missing.json'}: " in done.stderr
    assert "Traceback" not in done.stderr
    assert SECRET_KEY not in done.stderr
