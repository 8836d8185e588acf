"""The gauges of a process show what its breaker, event loop, switches and pools show."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from couponapp.guards.circuit_breaker import CircuitBreaker, Forced, Rules
from couponapp.guards.overload import OverloadGuard
from couponapp.guards.switch_reader import SwitchReader
from couponapp.local.postgres import free_port
from couponapp.operating import gauges
from couponapp.storage.pool import Pool, Timeouts
from tests.support.clock import Clock

NAME = "breaker-of-the-gauges"


def gauge(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"coupon_{name}", labels)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker(NAME, is_failure=lambda _: True, rules=Rules(window=4, min_calls=4), clock=clock)


def record(breaker: CircuitBreaker, clock: Clock, *pools: Pool) -> None:
    overload = OverloadGuard(target_s=0.1, patience_s=1.0, clock=clock)
    overload.begin_round()
    clock.move(0.25)
    overload.end_round()
    switches = SwitchReader(dict, clock)
    clock.move(3.0)
    gauges.record(pools=pools, breaker=breaker, overload=overload, switches=switches)


def test_exactly_one_state_and_one_setting_of_the_breaker_are_shown(breaker: CircuitBreaker, clock: Clock) -> None:
    for forced, state in ((Forced.NO, "closed"), (Forced.OPEN, "open"), (Forced.CLOSED, "closed")):
        breaker.force(forced)
        record(breaker, clock)
        states = {one: gauge("breaker_state", breaker=NAME, state=one) for one in ("closed", "half-open", "open")}
        assert states == {one: float(one == state) for one in states}
        settings = {one: gauge("breaker_forced", breaker=NAME, forced=one) for one in ("auto", "open", "closed")}
        assert settings == {one: float(one == forced) for one in settings}


def test_the_breakers_window_is_shown_in_percent(breaker: CircuitBreaker, clock: Clock) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    breaker.call(lambda: None)
    with pytest.raises(ZeroDivisionError):
        breaker.call(fail)
    record(breaker, clock)
    assert gauge("breaker_window_calls", breaker=NAME) == 2
    assert gauge("breaker_failure_percent", breaker=NAME) == 50


def test_the_longest_round_and_the_age_of_the_switches_are_seconds(breaker: CircuitBreaker, clock: Clock) -> None:
    record(breaker, clock)
    assert (gauge("loop_round_seconds"), gauge("switches_age_seconds")) == (0.25, 3.0)


def test_each_pool_is_shown_by_its_name_with_the_most_that_it_may_open(breaker: CircuitBreaker, clock: Clock) -> None:
    url = f"postgresql://127.0.0.1:{free_port()}/none"
    sizes = {"gauges-3": 3, "gauges-1": 1}
    bounds = Timeouts.within(100)
    record(breaker, clock, *(Pool(url, name=name, max_size=size, timeouts=bounds) for name, size in sizes.items()))
    assert {name: gauge("pool_connections_max", pool=name) for name in sizes} == sizes
    assert {gauge("pool_waiting", pool=name) for name in sizes} == {0}
