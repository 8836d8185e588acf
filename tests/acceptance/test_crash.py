"""PostgreSQL is killed in the middle: «issued» means committed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from couponapp.issuing.statement import issue
from couponapp.local.postgres import EmbeddedPostgres
from couponapp.operating.verify import verify
from couponapp.planning import coupons
from couponapp.storage import migrations
from couponapp.storage.pool import Pool
from tests.support.servers import own_postgres, running_web, service_environ, wait_until

CLIENTS = 8
ACKNOWLEDGED_BEFORE = 60
ACKNOWLEDGED_AFTER = 30


def kill(server: EmbeddedPostgres) -> None:
    """Kill -9 the server: nothing is shut down, its sessions end where they notice that it is gone."""
    assert server.child is not None
    os.killpg(server.child.process.pid, signal.SIGKILL)
    server.child.process.wait(10)


class Load:
    """Clients that ask for one user after the other until told to stop."""

    def __init__(self, ask: Callable[[str], str | None]) -> None:
        self._ask = ask
        self._stop = threading.Event()
        self.acknowledged: dict[str, str] = {}
        self._executor = ThreadPoolExecutor(CLIENTS)
        self._clients = [self._executor.submit(self._run, number) for number in range(CLIENTS)]

    def _run(self, client: int) -> None:
        for number in range(100_000):
            if self._stop.is_set():
                return
            user = f"user-{client}-{number}"
            if code := self._ask(user):
                self.acknowledged[user] = code

    def wait_for(self, count: int) -> None:
        """Wait until so many were acknowledged in all."""
        wait_until(lambda: len(self.acknowledged) >= count, timeout_s=60, what=f"{count} are acknowledged")

    def end(self) -> None:
        """Stop the clients; raises what one of them met."""
        self._stop.set()
        for client in self._clients:
            client.result(60)
        self._executor.shutdown()


def recorded(pool: Pool) -> dict[str, str]:
    return {row["user_id"]: row["code"] for row in pool.fetch_all("SELECT user_id, code FROM issuances")}


def test_no_acknowledged_issuance_is_missing_after_kill_9_under_load(
    tmp_path: Path,
    redis_url: str,
    make_pool: Callable[..., Pool],
    token_of: Callable[[str], str],
) -> None:
    with own_postgres(tmp_path / "server") as server:
        migrations.migrate(server.url)
        pool = make_pool(server.url)
        coupon_id = coupons.create(pool, name="쿠폰", total=1_000_000, opens_at=-60.0, closes_at=3600.0)
        with running_web(tmp_path, service_environ(server.url, redis_url)) as web:

            def ask(user: str) -> str | None:
                answer = web.request("POST", f"/api/v1/coupons/{coupon_id}/issue", token=token_of(user))
                assert answer.status in (201, 409, 503), answer
                return str(answer.json["data"]["code"]) if answer.status == 201 else None

            load = Load(ask)
            load.wait_for(ACKNOWLEDGED_BEFORE)
            kill(server)
            server.start(tmp_path / "server")
            load.wait_for(len(load.acknowledged) + ACKNOWLEDGED_AFTER)  # by itself, without a restart
            load.end()
        restarted = make_pool(server.url)
        assert load.acknowledged.items() <= recorded(restarted).items()
        assert verify(restarted).clean


def test_the_crash_test_catches_an_acknowledgement_before_the_commit_is_on_disk(
    tmp_path: Path, make_pool: Callable[..., Pool]
) -> None:
    # The negative control: with synchronous_commit off, «committed» is a promise of the WAL writer.
    lazy = ("wal_writer_delay=10s", "wal_writer_flush_after=1GB")
    with own_postgres(tmp_path, *lazy) as server:
        migrations.migrate(server.url)
        pool = make_pool(server.url, size=1)
        pool.execute("SET synchronous_commit = off")  # our pools switch it on, whatever the server says
        coupon_id = coupons.create(pool, name="쿠폰", total=1_000, opens_at=-60.0, closes_at=3600.0)
        pool.execute("CHECKPOINT")
        acknowledged = {}
        for number in range(50):
            attempt = issue(pool, coupon_id, f"user-{number}")
            assert attempt.issuance is not None
            acknowledged[attempt.issuance.user_id] = attempt.issuance.code
        kill(server)
        server.start(tmp_path)
        assert not acknowledged.items() <= recorded(make_pool(server.url)).items()
