"""Liveness, readiness, metrics."""

from __future__ import annotations

from flask import Blueprint, Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest, multiprocess
from prometheus_client.values import ValueClass
from pybreaker import STATE_CLOSED, STATE_HALF_OPEN, STATE_OPEN
from redis import Redis, RedisError

from couponapp import metrics
from couponapp.guards.circuit_breaker import CircuitBreaker, Forced
from couponapp.web.parts import Parts, parts
from couponapp.web.responses import answer, jittered_retry_after

probes = Blueprint("probes", __name__)


@probes.get("/livez")
def livez() -> Response:
    """The process is up. Touches nothing, so that no outage of another part restarts it."""
    return answer("OK")


@probes.get("/readyz")
def readyz() -> Response:
    """May take traffic: PostgreSQL answers. Redis is shown, but issuing goes on without it."""
    postgres, redis = parts().admin_pool.answers(), _redis_answers(parts().redis)
    data = {"postgresql": "up" if postgres else "down", "redis": "up" if redis else "down"}
    if postgres:
        return answer("READY", data)
    return answer("NOT_READY", data, headers=jittered_retry_after())


@probes.get("/metrics")
def show_metrics() -> Response:
    """Prometheus text format, added up over the web processes."""
    registry: CollectorRegistry = REGISTRY
    if ValueClass.__name__ != "MutexValue":  # several processes share a directory
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


def record_gauges(service: Parts) -> None:
    """Set this process's gauges; called regularly, see `gunicorn.conf.py`."""
    _record_breaker(service.breaker)
    metrics.LOOP_ROUND_SECONDS.set(service.backlog.longest_s())
    metrics.SWITCHES_AGE.set(service.switches.age_s())
    for pool in service.pools:
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


def _redis_answers(redis: Redis) -> bool:
    try:
        return bool(redis.ping())
    except (RedisError, OSError):
        return False
