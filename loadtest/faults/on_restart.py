"""Web servers behind a proxy are replaced one after the other, without an effect on users."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass

from couponapp.local.processes import Child
from loadtest.faults.fault import NOTHING_LOST, Fault, Stage
from loadtest.testbed.reverse_proxy import ReverseProxy
from loadtest.testbed.service import WEB_PROCESSES

TIMEOUT_S = 15.0
# Each web server has one process: as many in all as with every other fault.
ALONE = {"WEB_CONCURRENCY": "1"}


@dataclass
class Instances:
    """The web servers by port, and the proxy in front of them."""

    proxy: ReverseProxy
    servers: dict[int, Child]


def behind_proxy(stage: Stage, stack: ExitStack) -> int:
    """Start several web servers and a proxy in front of them; return its port."""
    servers = {}
    for _ in range(WEB_PROCESSES):
        port = stage.service.start_web(environ=ALONE)
        servers[port] = stage.service.web.child
    proxy = stack.enter_context(closing(ReverseProxy(list(servers))))
    stage.fixture = Instances(proxy, servers)
    return proxy.port


@contextmanager
def restarted_in_turn(stage: Stage) -> Iterator[None]:
    """Take each out of the proxy, stop it (SIGTERM), start it and put it in again."""
    instances = stage.fixture_as(Instances)
    for upstream in instances.proxy.upstreams:
        old = instances.servers[upstream.port]
        instances.proxy.take_out(upstream)
        old.end(TIMEOUT_S)
        if old.process.returncode:
            stage.broken.append(f"a web server ended with {old.process.returncode} after TERM")
        stage.service.start_web(port=upstream.port, environ=ALONE)
        instances.servers[upstream.port] = stage.service.web.child
        instances.proxy.put_in(upstream)
    yield


def all_serve(stage: Stage) -> Iterator[str]:
    """Check that each has answered requests since its restart."""
    for upstream in stage.fixture_as(Instances).proxy.upstreams:
        if not upstream.answered:
            yield "a web server has answered nothing since it was restarted"


FAULTS = (
    Fault(
        "rolling restart", restarted_in_turn, NOTHING_LOST, mending_s=10.0, serves=behind_proxy, afterwards=all_serve
    ),
)
