"""What one process shows of itself: the gauges that are set again and again."""

from __future__ import annotations

from collections.abc import Iterable

from pybreaker import STATE_CLOSED, STATE_HALF_OPEN, STATE_OPEN

from couponapp import metrics
from couponapp.guards.circuit_breaker import CircuitBreaker, Forced
from couponapp.guards.overload import OverloadGuard
from couponapp.guards.switch_reader import SwitchReader
from couponapp.storage.pool import Pool

# A scrape is answered by one process only, so each sets its own gauges this often, in seconds.
EVERY_S = 2.0


def record(*, pools: Iterable[Pool], breaker: CircuitBreaker, overload: OverloadGuard, switches: SwitchReader) -> None:
    """Set the gauges of this process.

    Args:
        pools: all connection pools.
        breaker: the circuit breaker around issuing.
        overload: tells the longest round of the event loop since the last call.
        switches: tells how old the operators' decisions are.
    """
    _record_breaker(breaker)
    metrics.LOOP_ROUND_SECONDS.set(overload.longest_s())
    metrics.SWITCHES_AGE.set(switches.age_s())
    for pool in pools:
        stats = pool.stats()
        size, free = stats.get("pool_size", 0), stats.get("pool_available", 0)
        metrics.POOL_CONNECTIONS.labels(pool.name, "used").set(size - free)
        metrics.POOL_CONNECTIONS.labels(pool.name, "free").set(free)
        metrics.POOL_CONNECTIONS_MAX.labels(pool.name).set(stats.get("pool_max", 0))
        metrics.POOL_WAITING.labels(pool.name).set(stats.get("requests_waiting", 0))


def _record_breaker(breaker: CircuitBreaker) -> None:
    now_in, rates = breaker.current_state, breaker.rates()
    for state in (STATE_CLOSED, STATE_HALF_OPEN, STATE_OPEN):
        metrics.BREAKER_STATE.labels(breaker.name, state).set(state == now_in)
    for forced in Forced:
        metrics.BREAKER_FORCED.labels(breaker.name, forced.value).set(forced is breaker.forced)
    metrics.BREAKER_CALLS.labels(breaker.name).set(rates.calls)
    metrics.BREAKER_FAILURE_PERCENT.labels(breaker.name).set(rates.failed)
    metrics.BREAKER_SLOW_PERCENT.labels(breaker.name).set(rates.slow)
    metrics.BREAKER_REFUSED.labels(breaker.name).set(breaker.refused)
