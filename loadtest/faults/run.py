"""Lets one fault happen in the middle of a load, and judges it."""

from __future__ import annotations

from contextlib import ExitStack

from loadtest.driver.http_client import HOST
from loadtest.driver.process import sending_process
from loadtest.faults import judge
from loadtest.faults.fault import CIRCUIT_CLOSES_S, Behind, Fault, Preloaded, Shows, Stage
from loadtest.faults.host_load import HostLoad
from loadtest.faults.judge import Timeline
from loadtest.faults.load import BEFORE_S, Load, plan, retries, send
from loadtest.faults.metrics_watch import MetricsWatch
from loadtest.faults.verdict import Verdict, skipped
from loadtest.testbed import preload
from loadtest.testbed.service import Service, running_service
from loadtest.testbed.tcp_proxy import relay_to

AFTER_S = 1.5
STOCK = 100_000


def run(fault: Fault) -> Verdict:
    """Let one fault happen; takes some fifteen seconds, or longer where the fault does."""
    if why := (preload.missing() if fault.preloaded is not Preloaded.NOBODY else "") or fault.lacks():
        return skipped(fault.name, fault.expected, why)
    with ExitStack() as stack:
        process = stack.enter_context(sending_process(send))
        service = stack.enter_context(running_service())
        stage = _prepare(fault, service, stack)
        load = Load(process, stage.port, plan(stage, fault, _length_s(fault)))
        host_load, watch = HostLoad(), MetricsWatch(stage.port)
        with watch.watching(), host_load.measuring():
            began_s, ended_s, results = load.run_through(fault.happens(stage), fault.lasts_s)
        timeline = Timeline(began_s, ended_s, watch.circuit_opened, watch.without_redis)
        broken = stage.broken + judge.broken_answers(fault, timeline, results)
        retried = Load(process, stage.port, retries(stage, results)).results()
        if refused := sum(one.status != 201 for one in retried):
            broken.append(f"{refused} of {len(retried)} retries with the same key got no 201")
        broken += fault.afterwards(stage)
        url = stage.moved_to or service.postgres.url
        broken += judge.broken_records(url, judge.shown_issued([*results, *retried]))
        seen, bound = judge.seen(fault, timeline, results), judge.bound(fault, timeline)
        return Verdict(fault.name, fault.expected, seen, bound, broken, host_load.waited_ms)


def _length_s(fault: Fault) -> float:
    # Only 503s because of PostgreSQL open a circuit.
    back_s = CIRCUIT_CLOSES_S if fault.promises.shows is Shows.REFUSALS else fault.back_s
    return BEFORE_S + fault.lasts_s + fault.mending_s + back_s + AFTER_S


def _prepare(fault: Fault, service: Service, stack: ExitStack) -> Stage:
    """Start what the fault needs, and what is to get the load."""
    stage, environ = Stage(service, 0, service.new_coupon(STOCK)), {}
    if fault.preloaded is not Preloaded.NOBODY:
        stage.control = preload.Control(service.home, disk=service.postgres.data)
        if fault.preloaded is Preloaded.POSTGRESQL:
            stage.control.take_over(service.postgres, service.home)
        else:
            environ = stage.control.environ
    if fault.behind in (Behind.REDIS, Behind.POSTGRESQL):
        upstream = service.valkey.url if fault.behind is Behind.REDIS else service.postgres.url
        stage.relay = stack.enter_context(relay_to(upstream))
        environ = {fault.behind.value: stage.relay.url}
    serves = fault.serves or (lambda *_: service.start_web(files=fault.files, environ=environ))
    stage.port = serves(stage, stack)
    if fault.behind is Behind.WEB:
        stage.relay = stack.enter_context(relay_to(f"http://{HOST}:{stage.port}"))
        stage.port = stage.relay.port
    return stage
