"""The service on Redis behind Sentinels and on a cluster: real processes, a killed master."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from couponapp.issuing.statement import issue
from couponapp.storage.pool import Pool
from tests.support.servers import ROOT, Web, running_web, running_worker, service_environ, wait_until
from tests.support.valkeys import FAILOVER_TIMEOUT_S, Server, cluster_of_valkeys, watched_valkeys

NewCoupon = Callable[..., int]
DELIVERED_TIMEOUT_S = 60.0


def deliver(pool: Pool, coupon_id: int, directory: Path, *users: str) -> None:
    """Issue to these users, and wait until each of them has been sent a message."""
    before = len(messages(directory))
    for user in users:
        assert issue(pool, coupon_id, user).issuance is not None
    wait_until(
        lambda: len(messages(directory)) == before + len(users),
        timeout_s=DELIVERED_TIMEOUT_S,
        what=f"messages to {', '.join(users)}",
    )


def messages(directory: Path) -> list[Path]:
    return list((directory / "notifications").glob("*"))


@pytest.mark.parametrize("lose", [Server.kill, Server.freeze])
def test_the_worker_continues_with_the_promoted_master(
    tmp_path: Path, database_url: str, pool: Pool, new_coupon: NewCoupon, lose: Callable[[Server], None]
) -> None:
    coupon_id = new_coupon(total=100)
    with watched_valkeys(tmp_path) as watched:
        # What was queued and not yet replicated comes back when its lease ends.
        leases = {"COUPON_NOTIFY_LEASE_S": "5", "COUPON_NOTIFY_TIMEOUT_S": "2"}
        environ = service_environ(database_url, watched.url(), **leases)
        with running_worker(tmp_path, environ) as worker:
            deliver(pool, coupon_id, tmp_path, "before")
            old = watched.master
            lose(old)
            watched.wait_for_another_master(old)
            deliver(pool, coupon_id, tmp_path, "after-1", "after-2", "after-3")
            assert worker.poll() is None


def test_the_worker_does_not_start_on_a_cluster_and_says_so_in_one_line(database_url: str) -> None:
    environ = service_environ(database_url, "redis+cluster://:hush@127.0.0.1:1/")
    command = [sys.executable, "-m", "couponapp.worker"]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "couponapp: COUPON_RQ_URL is not set, and REDIS_URL is a cluster, on which RQ does not run\n"
    )


def test_with_the_limits_on_a_cluster_the_worker_uses_a_redis_of_its_own(
    tmp_path: Path, database_url: str, redis_url: str, pool: Pool, new_coupon: NewCoupon
) -> None:
    environ = service_environ(database_url, "redis+cluster://127.0.0.1:1/", COUPON_RQ_URL=redis_url)
    with running_worker(tmp_path, environ):
        deliver(pool, new_coupon(), tmp_path, "kim")


@contextmanager
def behind_sentinels(directory: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """An address, and what makes it fail over."""
    with watched_valkeys(directory) as watched:
        yield watched.url(), watched.master.kill


@contextmanager
def in_a_cluster(directory: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """An address, and what makes it fail over."""
    with cluster_of_valkeys(directory) as cluster:
        yield cluster.url, cluster.owner.kill


@pytest.mark.parametrize("servers", [behind_sentinels, in_a_cluster])
def test_web_processes_share_their_counts_again_after_a_failover_and_no_client_sees_an_error(
    tmp_path: Path,
    database_url: str,
    new_coupon: NewCoupon,
    token_of: Callable[[str], str],
    servers: Callable[[Path], AbstractContextManager[tuple[str, Callable[[], object]]]],
) -> None:
    path = f"/api/v1/coupons/{new_coupon(total=100_000)}/issue"
    users, seen = itertools.count(), set[int]()
    with (
        servers(tmp_path) as (url, lose),
        running_web(tmp_path, service_environ(database_url, url, COUPON_LIMIT_USER="3/hour")) as web,
    ):

        def counted_together() -> bool:
            """Three attempts of a new user in all, whichever process they meet."""
            token = token_of(f"user-{next(users)}")
            statuses = [web.request("POST", path, token=token).status for _ in range(8)]
            seen.update(statuses)
            return statuses == [201, 409, 409, 429, 429, 429, 429, 429] and counting_together(web) == 2

        wait_until(counted_together, timeout_s=30, what="both processes count in Redis")
        lose()
        counted_together()
        wait_until(counted_together, timeout_s=FAILOVER_TIMEOUT_S, what="both processes count in Redis again")
        wait_until(lambda: told_redis(web) == "up", timeout_s=10, what="the probe tells it")
    assert seen == {201, 409, 429}


def counting_together(web: Web) -> int:
    text = web.request("GET", "/metrics").body.decode()
    (number,) = re.findall(r"^coupon_limits_shared_processes{.*} ([0-9.]+)$", text, re.MULTILINE) or ["0"]
    return int(float(number))


def told_redis(web: Web) -> str:
    answer = web.request("GET", "/readyz")
    assert answer.status == 200
    return str(answer.json["data"]["redis"])
