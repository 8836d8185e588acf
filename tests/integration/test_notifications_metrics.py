"""The metrics of notifications, and that readiness does not depend on notifications."""

from __future__ import annotations

import http.client
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families

from couponapp.errors import ChannelFailed
from couponapp.local.postgres import free_port
from couponapp.notifying import deliveries, jobs, outbox
from couponapp.storage.pool import Pool
from tests.support.notifying import ScriptedChannel, issue_to
from tests.support.servers import ROOT, running_web, running_worker, wait_until

NewCoupon = Callable[..., int]


def scrape(port: int) -> dict[tuple[str, str], float]:
    """Return values by name and channel; empty while the port is closed."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    except OSError:
        return {}
    finally:
        connection.close()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(one.name, one.labels.get("channel", "")): one.value for one in samples if "le" not in one.labels}


def test_the_worker_exports_the_sum_of_its_parts_even_after_one_has_died(
    tmp_path: Path, environ: dict[str, str], pool: Pool, new_coupon: NewCoupon
) -> None:
    port, coupon_id = free_port(), new_coupon()
    directory = str(tmp_path / "metrics")
    with running_worker(
        tmp_path, {**environ, "COUPON_WORKER_METRICS_PORT": str(port), "COUPON_METRICS_DIR": directory}
    ) as process:
        issue_to(pool, coupon_id, "kim", "lee")
        sent = ("coupon_notifications_sent_total", "file")
        wait_until(lambda: scrape(port).get(sent) == 2, timeout_s=30, what="two count as sent")
        shown = scrape(port)
        assert shown["coupon_notification_seconds_count", "file"] == 2
        assert 0 < shown["coupon_notification_seconds_sum", "file"] < 60
        assert shown["coupon_notifications_dead_letters", "file"] == 0
        assert {"coupon_notifications_waiting", "coupon_notifications_oldest_seconds"} <= {name for name, _ in shown}
        (part,) = [one for one in psutil.Process(process.pid).children() if one.cmdline()[-1] == "file"]
        part.kill()
        issue_to(pool, coupon_id, "park")
        wait_until(lambda: scrape(port).get(sent) == 3, timeout_s=30, what="the new part's count is added")


def test_a_part_that_runs_alone_exports_its_own_metrics(tmp_path: Path, environ: dict[str, str]) -> None:
    port = free_port()
    full = {**environ, "COUPON_WORKER_METRICS_PORT": str(port), "COUPON_NOTIFY_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "couponapp.worker", "--part", "relay"]
    process = subprocess.Popen(command, cwd=ROOT, env=full)
    try:
        waiting = ("coupon_notifications_waiting", "file")
        wait_until(lambda: scrape(port).get(waiting) == 0, timeout_s=30, what="the relay has set its gauges")
    finally:
        process.terminate()
        assert process.wait(15) == 0


def test_a_port_in_use_is_reported_in_one_line(tmp_path: Path, environ: dict[str, str]) -> None:
    with running_web(tmp_path, environ, processes=1) as web:
        full = {**environ, "COUPON_WORKER_METRICS_PORT": str(web.port), "COUPON_METRICS_DIR": str(tmp_path / "m")}
        done = subprocess.run(
            [sys.executable, "-m", "couponapp.worker"],
            cwd=ROOT, env=full, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        # Readiness does not depend on the worker.
        assert web.request("GET", "/readyz").status == 200
    assert done.returncode == 1
    assert done.stderr.startswith(f"couponapp: COUPON_WORKER_METRICS_PORT {web.port} on 127.0.0.1 cannot be used")
    assert done.stderr.count("\n") == 1


def test_depth_age_and_dead_letters_are_reported_per_channel(pool: Pool, new_coupon: NewCoupon) -> None:
    issue_to(pool, new_coupon(), "a", "b", "c", "d")
    outbox.fan_out(pool, ("x", "y"), limit=3, give_up_s=60)
    pool.execute("UPDATE deliveries SET created_at = now() - interval '90 seconds' WHERE outbox_id = 1")
    deliveries.mark_sent(pool, "x", [1])
    pool.execute("UPDATE deliveries SET dead_at = now() WHERE channel = 'y' AND outbox_id = 2")
    pool.execute("UPDATE deliveries SET due_at = now() + interval '1 hour' WHERE channel = 'x' AND outbox_id < 3")
    backlogs = deliveries.channel_backlogs(pool, ("y", "z"))
    # The fourth row is not fanned out yet, so it waits on each configured channel.
    assert {name: (one.waiting, one.deferred, one.dead) for name, one in backlogs.items()} == {
        "x": (2, 1, 0),
        "y": (3, 0, 1),
        "z": (1, 0, 0),
    }
    assert backlogs["y"].oldest_s == pytest.approx(90, abs=30)
    assert backlogs["x"].oldest_s < 60


def test_retries_and_dead_letters_are_counted(pool: Pool, new_coupon: NewCoupon) -> None:
    channel = ScriptedChannel("counted")
    issue_to(pool, new_coupon(), "a", "b", "c")
    outbox.fan_out(pool, ("counted",), limit=10, give_up_s=60)
    pool.execute("UPDATE deliveries SET due_at = now() + interval '1 minute'")
    channel.fail("a", ChannelFailed("not now"))
    channel.fail("b", ChannelFailed("never", permanent=True))
    jobs.ChannelSender(pool, channel).deliver([1, 2, 3])
    from couponapp import metrics

    counters = (metrics.NOTIFICATIONS_SENT, metrics.NOTIFICATIONS_RETRIED, metrics.NOTIFICATIONS_DEAD)
    assert [counter.labels("counted")._value.get() for counter in counters] == [1, 1, 1]


def test_readiness_does_not_depend_on_notifications(app: Flask, pool: Pool, new_coupon: NewCoupon) -> None:
    # No worker runs, one delivery is dead and another has waited for a day.
    issue_to(pool, new_coupon(), "a", "b", "c")
    outbox.fan_out(pool, ("file",), limit=2, give_up_s=60)
    pool.execute("UPDATE deliveries SET dead_at = now() WHERE outbox_id = 1")
    pool.execute("UPDATE deliveries SET created_at = now() - interval '1 day' WHERE outbox_id = 2")
    assert app.test_client().get("/readyz").status_code == 200
    # It does not depend on the tables either.
    pool.execute("DROP TABLE deliveries; ALTER TABLE outbox RENAME TO away")
    assert app.test_client().get("/readyz").status_code == 200
