"""Web servers behind a proxy are replaced one after the other: nobody notices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from couponapp.local.processes import Child
from loadtest.faults.fault import Fault, Stage, answers
from loadtest.testbed.reverse_proxy import ReverseProxy, Upstream, proxy_to
from loadtest.testbed.service import WEB_PROCESSES

TIMEOUT_S = 15.0
# Each web server has one process: as many in all as with every other fault.
ALONE = {"WEB_CONCURRENCY": "1"}


@dataclass
class Instances:
    """The web servers, by their port, and what stands in front of them."""

    proxy: ReverseProxy
    servers: dict[int, Child]


def behind_proxy(stage: Stage, stack: ExitStack) -> int:
    """Several web servers with one port in front."""
    servers = {}
    for _ in range(WEB_PROCESSES):
        port = stage.service.start_web(environ=ALONE)
        servers[port] = stage.service.web
    proxy = stack.enter_context(proxy_to(list(servers)))
    stage.beside = Instances(proxy, servers)
    return proxy.port


def _instances(stage: Stage) -> Instances:
    assert isinstance(stage.beside, Instances)
    return stage.beside


@contextmanager
def restarted_in_turn(stage: Stage) -> Iterator[None]:
    """Each is taken out of the proxy, ended with TERM, started anew and put in again."""
    for upstream in _instances(stage).proxy.upstreams:
        _replace(stage, upstream)
    yield


def _replace(stage: Stage, upstream: Upstream) -> None:
    instances = _instances(stage)
    old = instances.servers[upstream.port]
    instances.proxy.take_out(upstream)
    old.end(TIMEOUT_S)
    if old.process.returncode:
        stage.broken.append(f"a web server ended with {old.process.returncode} after TERM")
    stage.service.start_web(port=upstream.port, environ=ALONE)
    instances.servers[upstream.port] = stage.service.web
    instances.proxy.put_in(upstream)


def all_serve(stage: Stage) -> Iterator[str]:
    """Each has answered requests since it is back."""
    for upstream in _instances(stage).proxy.upstreams:
        if not upstream.answered:
            yield "a web server has answered nothing since it was restarted"


READ = answers(200)

FAULTS = (
    Fault(
        name="rolling restart",
        expected="no answer is lost, nothing refused",
        happens=restarted_in_turn,
        issue=answers(201),
        look_up=READ,
        mine=READ,
        mending_s=10.0,
        serves=behind_proxy,
        afterwards=all_serve,
    ),
)
