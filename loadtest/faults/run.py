"""Lets one fault happen in the middle of a load, and judges it."""

from __future__ import annotations

from contextlib import ExitStack

from loadtest.driver.background import sending_process
from loadtest.driver.generator import open_loop
from loadtest.faults import judge
from loadtest.faults.fault import CIRCUIT_CLOSES_S, Fault, Shows, Stage
from loadtest.faults.host_load import HostLoad
from loadtest.faults.judge import Timeline
from loadtest.faults.load import BEFORE_S, Load, plan, retries
from loadtest.faults.metrics_watch import MetricsWatch
from loadtest.faults.verdict import Verdict, skipped
from loadtest.testbed.service import running_service

AFTER_S = 1.5
STOCK = 100_000


def run(fault: Fault) -> Verdict:
    """Let one fault happen; takes some fifteen seconds, or longer where the fault does."""
    if why := fault.lacks():
        return skipped(fault.name, fault.promises.in_words, why)
    with ExitStack() as stack:
        process = stack.enter_context(sending_process(open_loop))
        service = stack.enter_context(running_service())
        stage = Stage(service, 0, service.new_coupon(STOCK))
        stage.port = fault.serves(stage, stack)
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
        return Verdict(fault.name, fault.promises.in_words, seen, bound, broken, host_load.waited_ms)


def _length_s(fault: Fault) -> float:
    # Only 503s because of PostgreSQL open a circuit.
    back_s = CIRCUIT_CLOSES_S if fault.promises.shows is Shows.REFUSALS else fault.back_s
    return BEFORE_S + fault.lasts_s + fault.mending_s + back_s + AFTER_S
