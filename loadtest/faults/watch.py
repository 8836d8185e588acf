"""Looks at the service's own metrics all the time."""

from __future__ import annotations

import urllib.request
from contextlib import AbstractContextManager

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from couponapp.metrics import BREAKER_STATE, LIMITS_SHARED
from loadtest.driver.background import running_in_background
from loadtest.driver.http_client import HOST
from loadtest.testbed.service import WEB_PROCESSES

POLL_S = 0.5
CIRCUIT, COUNTING_IN_REDIS = (next(iter(gauge.describe())).name for gauge in (BREAKER_STATE, LIMITS_SHARED))


class Watch:
    """What the metrics have shown until now.

    Attributes:
        circuit_opened: in any process.
        without_redis: some process has counted its limits by itself after all had counted in Redis.
    """

    def __init__(self, port: int) -> None:
        """Begin with nothing seen.

        Args:
            port: of the web server.
        """
        self.circuit_opened = False
        self.without_redis = False
        self._port = port
        self._all_with_redis = False

    def looking(self) -> AbstractContextManager[None]:
        """Look during the block."""
        # A circuit stays open for seconds, and each process tells its state every two.
        return running_in_background(self._look, every_s=POLL_S)

    def _look(self) -> None:
        if shown := samples(self._port):
            self._note(shown)

    def _note(self, shown: list[Sample]) -> None:
        self.circuit_opened |= any(one.name == CIRCUIT and one.labels["state"] == "open" and one.value for one in shown)
        counting = counting_in_redis(shown)
        self._all_with_redis |= counting == WEB_PROCESSES
        self.without_redis |= self._all_with_redis and counting < WEB_PROCESSES


def samples(port: int) -> list[Sample]:
    """All that the web server's metrics show; nothing where it does not answer.

    Args:
        port: of the web server.
    """
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=2) as answer:
            families = text_string_to_metric_families(answer.read().decode())
    except OSError:
        return []
    return [sample for family in families for sample in family.samples]


def counting_in_redis(shown: list[Sample]) -> int:
    """How many web processes count their limits in Redis.

    Args:
        shown: all metrics.
    """
    return round(sum(one.value for one in shown if one.name == COUNTING_IN_REDIS))
