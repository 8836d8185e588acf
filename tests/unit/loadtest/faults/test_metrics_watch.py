"""How many web processes count their limits in Redis, read from their metrics."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from couponapp.local.postgres import free_port
from couponapp.metrics import LIMITS_SHARED
from loadtest.faults.metrics_watch import COUNTING_IN_REDIS, counting_in_redis, samples


def test_the_processes_that_count_in_redis_are_added_up() -> None:
    text = "".join(f'{COUNTING_IN_REDIS}{{pid="{pid}"}} {value}\n' for pid, value in ((1, 1.0), (2, 0.0), (3, 1.0)))
    shown = [one for family in text_string_to_metric_families(f"other 7.0\n{text}") for one in family.samples]
    assert counting_in_redis(shown) == 2
    assert next(iter(LIMITS_SHARED.describe())).name == COUNTING_IN_REDIS


def test_a_server_that_does_not_answer_shows_nothing() -> None:
    assert samples(free_port()) == []
