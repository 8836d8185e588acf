"""Liveness, readiness, metrics."""

from __future__ import annotations

from flask import Blueprint, Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest, multiprocess
from prometheus_client.values import ValueClass
from redis import Redis, RedisError

from couponapp.web.current import services
from couponapp.web.responses import jittered_retry_after, json_response

probes = Blueprint("probes", __name__)


@probes.get("/livez")
def livez() -> Response:
    """Say that the process is up. Touches nothing, so that no outage of another part restarts it."""
    return json_response("OK")


@probes.get("/readyz")
def readyz() -> Response:
    """Say whether this process may take traffic: PostgreSQL answers. Issuing goes on without Redis."""
    postgres, redis = services().admin_pool.answers(), _redis_answers(services().redis)
    data = {"postgresql": "up" if postgres else "down", "redis": "up" if redis else "down"}
    if postgres:
        return json_response("READY", data)
    return json_response("NOT_READY", data, headers=jittered_retry_after())


@probes.get("/metrics")
def show_metrics() -> Response:
    """Return the metrics in Prometheus' text format, added up over the web processes."""
    registry: CollectorRegistry = REGISTRY
    if ValueClass.__name__ != "MutexValue":  # several processes share a directory
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


def _redis_answers(redis: Redis) -> bool:
    try:
        return bool(redis.ping())
    except (RedisError, OSError):
        return False
