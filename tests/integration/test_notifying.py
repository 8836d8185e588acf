"""Outbox → relay → RQ → file: what is lost on the way is sent again, and a repeat counts once."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psutil
import pytest
from redis import Redis, RedisError
from redis.connection import Connection
from rq import Queue

from couponapp.issuing.statement import issue
from couponapp.local.postgres import free_port
from couponapp.notifying import jobs
from couponapp.notifying.channels.file.channel import FileChannel
from couponapp.notifying.relay import DELIVERIES_PER_JOB, MAX_QUEUED_JOBS, Relay
from couponapp.operating.verify import verify
from couponapp.storage.pool import Pool
from couponapp.storage.redis import connect
from couponapp.worker.rq_worker import ChannelWorker
from tests.support.servers import end, running_worker, wait_until

NewCoupon = Callable[..., int]
SEOUL = ZoneInfo("Asia/Seoul")
FILE_QUEUE = jobs.queue_name("file")
EXPIRE_LEASES = "UPDATE deliveries SET due_at = now() - interval '1 second' WHERE sent_at IS NULL"


@pytest.fixture
def relay(pool: Pool, redis: Redis) -> Relay:
    return Relay(pool, redis, lease_s=60)


@pytest.fixture
def work(pool: Pool, redis: Redis, notifications: Path) -> Callable[[], None]:
    """Run everything that is queued with an RQ worker."""

    def run() -> None:
        sender = jobs.ChannelSender(pool, FileChannel(notifications, SEOUL))
        jobs.configure(sender)
        ChannelWorker(sender, redis).work(burst=True)

    return run


def issue_to(pool: Pool, coupon_id: int, *users: str) -> list[int]:
    attempts = [issue(pool, coupon_id, user) for user in users]
    return [attempt.issuance.id for attempt in attempts if attempt.issuance]


def sent(pool: Pool) -> int:
    row = pool.fetch_one("SELECT count(sent_at) AS sent FROM outbox")
    assert row is not None
    return int(row["sent"])


def messages(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*"))


def test_an_issuance_becomes_one_file_that_names_coupon_code_and_holder(
    pool: Pool, new_coupon: NewCoupon, relay: Relay, work: Callable[[], None], notifications: Path
) -> None:
    attempt = issue(pool, new_coupon(name="추석 쿠폰"), "kim")
    assert attempt.issuance is not None
    assert relay.hand_over() == 1
    work()
    (message,) = notifications.glob("*")
    text = message.read_text()
    assert all(part in text for part in ("추석 쿠폰", attempt.issuance.code, "kim", "KST"))
    assert sent(pool) == 1


def test_rows_are_handed_over_oldest_first_and_once(
    pool: Pool, new_coupon: NewCoupon, relay: Relay, redis: Redis
) -> None:
    coupon_id = new_coupon(total=100)
    issue_to(pool, coupon_id, *(f"user-{n}" for n in range(60)))
    assert [relay.hand_over(), relay.hand_over()] == [60, 0]
    queued = [outbox_id for job in Queue(FILE_QUEUE, connection=redis).get_jobs() for outbox_id in job.args[1]]
    rows = pool.fetch_all("SELECT id FROM outbox ORDER BY id")
    assert queued == [row["id"] for row in rows]


def test_handing_over_takes_two_round_trips_to_redis_for_any_number_of_deliveries(
    pool: Pool, new_coupon: NewCoupon, relay: Relay, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    sends: list[int] = []
    real = Connection.send_packed_command

    def counted(self: Connection, command: Any, check_health: bool = True) -> Any:
        sends.append(1)
        return real(self, command, check_health)  # type: ignore[no-untyped-call]  # redis has types for a part of itself

    issue_to(pool, new_coupon(), "first")
    relay.hand_over()  # opens the connection and lets RQ ask for the server's version
    monkeypatch.setattr(Connection, "send_packed_command", counted)
    for size in (1, 2 * DELIVERIES_PER_JOB):
        issue_to(pool, new_coupon(total=size), *(f"user-{n}" for n in range(size)))
        redis.flushdb()
        sends.clear()
        assert relay.hand_over() == size
        assert len(sends) == 2  # the lengths of the queues, and the jobs


def test_concurrent_relays_share_the_rows(pool: Pool, new_coupon: NewCoupon, redis: Redis) -> None:
    coupon_id = new_coupon(total=500)
    issue_to(pool, coupon_id, *(f"user-{n}" for n in range(3 * DELIVERIES_PER_JOB)))
    with ThreadPoolExecutor(3) as executor:
        counts = list(executor.map(lambda _: Relay(pool, redis, lease_s=60).hand_over(), range(3)))
    queued = [outbox_id for job in Queue(FILE_QUEUE, connection=redis).get_jobs() for outbox_id in job.args[1]]
    assert sum(counts) == len(queued) == len(set(queued))


def test_what_redis_lost_is_handed_over_again_after_its_lease(
    pool: Pool, new_coupon: NewCoupon, relay: Relay, redis: Redis, work: Callable[[], None]
) -> None:
    issue_to(pool, new_coupon(), "kim", "lee")
    assert relay.hand_over() == 2
    redis.flushall()
    work()
    assert (relay.hand_over(), sent(pool)) == (0, 0)  # the negative control: nothing is sent while the lease lasts
    pool.execute(EXPIRE_LEASES)
    assert relay.hand_over() == 2
    work()
    assert sent(pool) == 2


def test_an_outage_of_redis_leaves_the_rows_due(pool: Pool, new_coupon: NewCoupon, relay: Relay) -> None:
    issue_to(pool, new_coupon(), "kim")
    away = Relay(pool, connect(f"redis://127.0.0.1:{free_port()}", timeout_s=1), lease_s=60)
    with pytest.raises(RedisError):
        away.hand_over()
    assert relay.hand_over() == 1


def test_a_repeated_job_sends_nothing_again(
    pool: Pool, new_coupon: NewCoupon, relay: Relay, redis: Redis, work: Callable[[], None], notifications: Path
) -> None:
    issue_to(pool, new_coupon(), "kim")
    relay.hand_over()
    pool.execute(EXPIRE_LEASES)
    relay.hand_over()
    assert Queue(FILE_QUEUE, connection=redis).count == 2
    work()
    first = pool.fetch_one("SELECT sent_at FROM outbox")
    (message,) = messages(notifications)
    # The state after a crash between sending and recording it.
    pool.execute("UPDATE outbox SET sent_at = NULL, channels_left = 1")
    pool.execute("UPDATE deliveries SET sent_at = NULL")
    pool.execute(EXPIRE_LEASES)
    relay.hand_over()
    work()
    assert first != pool.fetch_one("SELECT sent_at FROM outbox")
    assert messages(notifications) == [message]


def test_one_delivery_that_fails_does_not_block_the_others(
    pool: Pool, new_coupon: NewCoupon, relay: Relay, work: Callable[[], None], notifications: Path
) -> None:
    first, second, third = issue_to(pool, new_coupon(), "kim", "lee", "park")
    in_the_way = notifications / f"issuance.issued-{second}.{os.getpid()}.draft"
    in_the_way.mkdir(parents=True)
    relay.hand_over()
    work()
    unsent = pool.fetch_all("SELECT issuance_id FROM outbox WHERE sent_at IS NULL")
    assert [row["issuance_id"] for row in unsent] == [second]
    in_the_way.rmdir()
    pool.execute(EXPIRE_LEASES)
    relay.hand_over()
    work()
    assert messages(notifications) == [f"issuance.issued-{n}.txt" for n in (first, second, third)]


def test_each_job_has_bounds_for_waiting_running_and_being_kept(
    pool: Pool, new_coupon: NewCoupon, relay: Relay, redis: Redis
) -> None:
    issue_to(pool, new_coupon(total=1_000), *(f"user-{n}" for n in range(2 * DELIVERIES_PER_JOB)))
    relay.hand_over()
    pool.execute(EXPIRE_LEASES)
    queued = Queue(FILE_QUEUE, connection=redis)
    first = queued.get_jobs()
    queued.empty()  # type: ignore[no-untyped-call]  # rq brings no types here
    relay.hand_over()
    again = queued.get_jobs()
    assert len({job.id for job in [*first, *again]}) == 4  # the same deliveries, and new ids
    assert {(job.ttl, job.timeout, job.result_ttl, job.failure_ttl) for job in again} == {(60, 120, 0, 86_400)}


def test_a_job_without_postgresql_is_kept_as_failed_and_its_deliveries_come_back(
    pool: Pool, new_coupon: NewCoupon, relay: Relay, redis: Redis, notifications: Path, make_pool: Callable[..., Pool],
    work: Callable[[], None],
) -> None:  # fmt: skip
    issue_to(pool, new_coupon(), "kim")
    relay.hand_over()
    away = make_pool(f"postgresql://nobody@127.0.0.1:{free_port()}/none", size=1, deadline_ms=1_000)
    sender = jobs.ChannelSender(away, FileChannel(notifications, SEOUL))
    jobs.configure(sender)
    ChannelWorker(sender, redis).work(burst=True)
    failed = Queue(FILE_QUEUE, connection=redis).failed_job_registry
    (job_id,) = failed.get_job_ids()
    assert 80_000 < redis.ttl(f"rq:job:{job_id}") <= 86_400
    assert sent(pool) == 0
    pool.execute(EXPIRE_LEASES)
    relay.hand_over()
    work()
    assert sent(pool) == 1


def test_the_queue_never_holds_more_jobs_than_can_run_within_their_leases(
    pool: Pool, new_coupon: NewCoupon, relay: Relay, redis: Redis
) -> None:
    queue = Queue(FILE_QUEUE, connection=redis)
    for _ in range(MAX_QUEUED_JOBS):
        queue.enqueue(jobs.deliver, "file", [])
    issue_to(pool, new_coupon(), "kim")
    assert relay.hand_over() == 0
    queue.empty()  # type: ignore[no-untyped-call]  # rq brings no types here
    assert relay.hand_over() == 1


def parts(worker: psutil.Process) -> dict[str, psutil.Process]:
    return {child.cmdline()[-1]: child for child in worker.children() if "--part" in child.cmdline()}


def test_the_worker_restarts_a_killed_part_and_stops_with_its_children(
    tmp_path: Path, environ: dict[str, str], pool: Pool, new_coupon: NewCoupon
) -> None:
    coupon_id = new_coupon()
    with running_worker(tmp_path, environ) as process:
        worker = psutil.Process(process.pid)
        for part in ("relay", "file"):
            issue_to(pool, coupon_id, f"before-{part}")
            wait_until(lambda: verify(pool).coupons[0]["waiting"] == 0, timeout_s=30, what="everything is delivered")
            killed = parts(worker)[part]
            killed.kill()
            issue_to(pool, coupon_id, f"after-{part}")
            wait_until(
                lambda: verify(pool).coupons[0]["waiting"] == 0,
                timeout_s=30,
                what=f"all after {part} died",
            )
            wait_until(lambda: set(parts(worker)) == {"relay", "file"}, timeout_s=10, what="both parts run")
        children = worker.children(recursive=True)
        assert end(process) == 0
        assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)


def test_the_parts_of_a_worker_do_not_outlive_it(tmp_path: Path, environ: dict[str, str]) -> None:
    with running_worker(tmp_path, environ) as process:
        worker = psutil.Process(process.pid)
        wait_until(lambda: set(parts(worker)) == {"relay", "file"}, timeout_s=10, what="both parts run")
        children = list(parts(worker).values())
        process.kill()
        process.wait(5)
        wait_until(
            lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children),
            timeout_s=15,
            what="the parts have exited",
        )
