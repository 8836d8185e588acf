"""Watches the service's own metrics during a fault."""

from __future__ import annotations

from contextlib import AbstractContextManager

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from couponapp.metrics import BREAKER_STATE, LIMITS_SHARED
from loadtest.driver.background import running_in_background
from loadtest.driver.http_client import get
from loadtest.testbed.service import WEB_PROCESSES

CIRCUIT, COUNTING_IN_REDIS = (next(iter(gauge.describe())).name for gauge in (BREAKER_STATE, LIMITS_SHARED))


class MetricsWatch:
    """What the metrics have shown so far.

    Attributes:
        circuit_opened: the circuit was open in any process.
        without_redis: a process has counted its limits by itself after all had counted in Redis.
    """

    def __init__(self, port: int) -> None:
        """Start with nothing seen.

        Args:
            port: of the web server.
        """
        self.circuit_opened = False
        self.without_redis = False
        self._port = port
        self._all_with_redis = False

    def watching(self) -> AbstractContextManager[None]:
        """Read the metrics in the background until the block ends."""
        # A circuit stays open for seconds, and each process reports its state every two.
        return running_in_background(self._look, every_s=0.5)

    def _look(self) -> None:
        if shown := samples(self._port):
            self.circuit_opened |= any(
                one.name == CIRCUIT and one.labels["state"] == "open" and one.value for one in shown
            )
            counting = counting_in_redis(shown)
            self._all_with_redis |= counting == WEB_PROCESSES
            self.without_redis |= self._all_with_redis and counting < WEB_PROCESSES


def samples(port: int) -> list[Sample]:
    """Return all samples of the web server's metrics; none where it does not answer.

    Args:
        port: of the web server.
    """
    reply = get(port, "/metrics", timeout_s=2)
    families = text_string_to_metric_families(reply.body.decode() if reply.status == 200 else "")
    return [sample for family in families for sample in family.samples]


def counting_in_redis(shown: list[Sample]) -> int:
    """Return how many web processes count their limits in Redis, according to all samples of the metrics."""
    return round(sum(one.value for one in shown if one.name == COUNTING_IN_REDIS))
