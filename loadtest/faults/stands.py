"""Servers in whose way a fault can step: with a proxy in front of one, or with a library in front of its C library."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, closing
from functools import partial

from loadtest.driver.http_client import HOST
from loadtest.faults.fault import Stage, during
from loadtest.testbed.preload import Control
from loadtest.testbed.tcp_proxy import TcpProxy


def web_behind_relay(stage: Stage, stack: ExitStack) -> int:
    """Start a web server, and a proxy in front of it as the fixture."""
    stage.fixture = relay = stack.enter_context(closing(TcpProxy(f"http://{HOST}:{stage.service.start_web()}")))
    return relay.port


def relay_to_server(stage: Stage, stack: ExitStack, *, setting: str) -> int:
    """Start a web server, and a proxy between it and the server of this setting as the fixture."""
    stage.fixture = relay = stack.enter_context(closing(TcpProxy(stage.service.environ[setting])))
    return stage.service.start_web(environ={setting: relay.url})


RELAY_TO_REDIS = partial(relay_to_server, setting="REDIS_URL")
RELAY_TO_POSTGRESQL = partial(relay_to_server, setting="DATABASE_URL")


def slowed(stage: Stage, delay_s: float) -> AbstractContextManager[None]:
    """Delay each response of the server behind the relay, in seconds."""
    relay = stage.fixture_as(TcpProxy)
    return during(lambda: setattr(relay, "delay_s", delay_s), lambda: setattr(relay, "delay_s", 0.0))


def preloaded_web(stage: Stage, stack: ExitStack) -> int:
    """Start a web server whose clock the fixture controls."""
    stage.fixture = control = Control(stage.service.home, disk=stage.service.postgres.data)
    return stage.service.start_web(environ=control.environ)


def preloaded_postgresql(stage: Stage, stack: ExitStack) -> int:
    """Let the fixture control PostgreSQL's disk and clock; start a web server."""
    stage.fixture = control = Control(stage.service.home, disk=stage.service.postgres.data)
    control.take_over(stage.service.postgres, stage.service.home)
    return stage.service.start_web()
