"""Fixtures: a PostgreSQL and a Redis for the session, a database built from the migrations per test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis

from couponapp.auth import tokens
from couponapp.config import settings
from couponapp.config.settings import Settings
from couponapp.local.postgres import free_port
from couponapp.local.valkey import EmbeddedValkey
from couponapp.planning import coupons
from couponapp.services import Services
from couponapp.storage.pool import Pool, Timeouts
from couponapp.web import create_app
from couponapp.web.current import EXTENSION
from loadtest.testbed.postgres import new_postgres
from tests.support.databases import Databases, cheapen_logins, with_database
from tests.support.memory import memory_directory
from tests.support.postgres_proxy import PostgresProxy, relay_to
from tests.support.servers import service_environ

pytest_plugins = ["tests.support.parallel"]

# What a Redis has when nothing else is configured.
REDIS_DATABASES = 16
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the browser tests where there is no Chromium."""
    for item in items:
        if CHROMIUM is None and item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.skip(reason="no Chromium on this machine"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail in CI when a test was skipped: there, nothing may be missing that a test needs."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server on which tests create databases of their own."""
    if url := os.environ.get("DATABASE_URL"):
        yield url
        return
    with memory_directory(tmp_path_factory.mktemp("postgres")) as directory:
        # No test pulls the plug on this one (those have their own), so nothing must reach the disk.
        server = new_postgres(directory / "postgres", "fsync=off", "full_page_writes=off", "max_wal_size=64MB")
        with server.running(directory):
            cheapen_logins(server.url)
            yield server.url


@pytest.fixture(scope="session")
def redis_server_url(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[str]:
    """A Redis server; where it is not our own, each test process keeps to one of its last databases."""
    if url := os.environ.get("REDIS_URL"):
        yield with_database(url, str(REDIS_DATABASES - 1 - int(worker_id.removeprefix("gw").replace("master", "0"))))
        return
    directory = tmp_path_factory.mktemp("valkey")
    with EmbeddedValkey(directory, password="test", port=free_port()).running(directory) as server:
        yield server.url


@pytest.fixture
def redis_url(redis_server_url: str) -> str:
    """An empty Redis database."""
    with Redis.from_url(redis_server_url) as client:
        client.flushdb()
    return redis_server_url


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    """A client of that database."""
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture(scope="session")
def databases(postgres_url: str) -> Iterator[Databases]:
    """Creates databases with all migrations on that server."""
    databases = Databases(postgres_url)
    yield databases
    databases.close()


@pytest.fixture
def database_url(databases: Databases) -> Iterator[str]:
    """A database of this test alone."""
    with databases.fresh() as url:
        yield url


@pytest.fixture
def make_pool() -> Iterator[Callable[..., Pool]]:
    """Makes pools that are closed when the test ends."""
    made: list[Pool] = []

    def make(url: str, *, size: int = 4, deadline_ms: int = 20_000) -> Pool:
        made.append(Pool(url, name="test", max_size=size, timeouts=Timeouts.within(deadline_ms)))
        return made[-1]

    yield make
    for pool in made:
        pool.close()


@pytest.fixture
def pool(make_pool: Callable[..., Pool], database_url: str) -> Pool:
    """A pool on this test's database."""
    return make_pool(database_url)


@pytest.fixture
def relay(database_url: str) -> Iterator[PostgresProxy]:
    """Stands in front of PostgreSQL, counts its answers and can lose them."""
    with relay_to(database_url) as relay:
        yield relay


@pytest.fixture
def new_coupon(pool: Pool) -> Callable[..., int]:
    """Makes a coupon; open now unless told otherwise."""

    def make(*, total: int = 10, opens_in_s: float = -60.0, closes_in_s: float = 3600.0, name: str = "쿠폰") -> int:
        return coupons.create(pool, name=name, total=total, opens_at=opens_in_s, closes_at=closes_in_s)

    return make


@pytest.fixture
def environ(database_url: str, redis_url: str) -> dict[str, str]:
    """The environment of a service on this test's database and Redis."""
    return service_environ(database_url, redis_url)


@pytest.fixture
def config(environ: dict[str, str]) -> Settings:
    """The settings of that service."""
    return settings.load(environ)


@pytest.fixture
def make_app() -> Iterator[Callable[..., Flask]]:
    """Makes applications whose services are closed when the test ends."""
    made: list[Flask] = []

    def make(config: Settings, services: Services | None = None) -> Flask:
        made.append(create_app(config, services))
        return made[-1]

    yield make
    for app in made:
        app.extensions[EXTENSION].close()


@pytest.fixture
def app(make_app: Callable[..., Flask], config: Settings) -> Flask:
    """The application, in this process."""
    return make_app(config)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """Asks the application in this process."""
    return app.test_client()


@pytest.fixture
def token_of(config: Settings) -> Callable[[str], str]:
    """Signs a token for a user."""
    return lambda user: tokens.sign(config, user, ttl_s=600)


@pytest.fixture
def bearer(token_of: Callable[[str], str]) -> Callable[[str], dict[str, str]]:
    """The Authorization header of a user."""
    return lambda user: {"Authorization": f"Bearer {token_of(user)}"}


@pytest.fixture
def notifications(tmp_path: Path) -> Path:
    """Where a worker under test leaves its messages."""
    return tmp_path / "notifications"
