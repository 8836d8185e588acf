"""Lets one fault happen in the middle of a load, and has it judged."""

from __future__ import annotations

from contextlib import ExitStack

from loadtest.driver.http_client import HOST
from loadtest.faults import judge
from loadtest.faults.fault import CIRCUIT_CLOSES_S, Behind, Fault, Preloaded, Shows, Stage
from loadtest.faults.host_load import HostLoad
from loadtest.faults.judge import Course
from loadtest.faults.load import plan, second_attempts, sender
from loadtest.faults.verdict import Verdict, skipped
from loadtest.faults.watch import Watch
from loadtest.testbed import preload
from loadtest.testbed.service import Service, running_service
from loadtest.testbed.tcp_proxy import relay_to

BEFORE_S = 2.0
AFTER_S = 1.5
STOCK = 100_000


def run(fault: Fault) -> Verdict:
    """Let one fault happen; takes some fifteen seconds, or longer where the fault does."""
    if fault.preloaded is not Preloaded.NOBODY and (why := preload.missing()):
        return skipped(fault.name, fault.expected, why)
    if why := fault.lacks():
        return skipped(fault.name, fault.expected, why)
    with ExitStack() as stack:
        sending_from = stack.enter_context(sender())
        service = stack.enter_context(running_service())
        stage = _set(fault, service, stack)
        arrivals = plan(stage, fault, _length_s(fault))
        sending = sending_from.begin(stage.port, arrivals)
        machine, watch = HostLoad(), Watch(stage.port)
        with watch.looking(), machine.measuring():
            sending.sleep_until(BEFORE_S)
            began_s = sending.now_s()
            with fault.happens(stage):
                sending.sleep_until(began_s + fault.lasts_s)
            ended_s = sending.now_s()
            results = sending.results(60.0)
        course = Course(began_s, ended_s, watch.circuit_opened, watch.without_redis)
        broken = stage.broken + judge.broken_answers(fault, course, results)
        again = sending_from.send(stage.port, second_attempts(stage, results))
        if refused := sum(one.status != 201 for one in again):
            broken.append(f"{refused} of {len(again)} who asked again with the same key got nothing")
        broken += fault.afterwards(stage)
        broken += judge.broken_records(stage.moved_to or service.postgres.url, judge.told_issued([*results, *again]))
        seen = judge.seen(fault, course, results)
        return Verdict(fault.name, fault.expected, seen, judge.bound(fault, course), broken, machine.waited_ms)


def _length_s(fault: Fault) -> float:
    # Only what is refused because PostgreSQL fails opens a circuit.
    back_s = CIRCUIT_CLOSES_S if fault.shows is Shows.REFUSALS else fault.back_s
    return BEFORE_S + fault.lasts_s + fault.mending_s + back_s + AFTER_S


def _set(fault: Fault, service: Service, stack: ExitStack) -> Stage:
    relay, control, environ = None, None, {}
    if fault.preloaded is not Preloaded.NOBODY:
        control = preload.Control(service.home, disk=service.postgres.data)
        if fault.preloaded is Preloaded.POSTGRESQL:
            control.take_over(service.postgres, service.home)
        else:
            environ = control.environ
    if fault.behind in (Behind.REDIS, Behind.POSTGRESQL):
        upstream = service.valkey.url if fault.behind is Behind.REDIS else service.postgres.url
        relay = stack.enter_context(relay_to(upstream))
        environ = {fault.behind.value: relay.url}
    stage = Stage(service, 0, service.new_coupon(STOCK), relay, control)
    serves = fault.serves or (lambda *_: service.start_web(files=fault.files, environ=environ))
    stage.port = serves(stage, stack)
    if fault.behind is Behind.WEB:
        stage.relay = stack.enter_context(relay_to(f"http://{HOST}:{stage.port}"))
        stage.port = stage.relay.port
    return stage
