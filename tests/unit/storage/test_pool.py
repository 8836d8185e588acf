"""The bounds of a statement share one deadline, and nothing connects before it is used."""

from __future__ import annotations

import pytest

from couponapp.local.postgres import free_port
from couponapp.storage.pool import Pool, Timeouts


@pytest.mark.parametrize("deadline_ms", [100, 1_000, 60_000])
def test_within_a_deadline_the_servers_own_time_outs_come_first(deadline_ms: int) -> None:
    bounds = Timeouts.within(deadline_ms)
    assert 0 < bounds.lock_ms < bounds.statement_ms < 1000 * bounds.total_s == deadline_ms
    assert bounds.wait_s < bounds.total_s


def test_a_pool_connects_at_its_first_use_and_one_that_never_was_used_can_be_closed() -> None:
    url = f"postgresql://127.0.0.1:{free_port()}/none"
    pool = Pool(url, name="test", max_size=1, timeouts=Timeouts.within(100))
    assert pool.stats().get("connections_num", 0) == 0
    pool.close()
