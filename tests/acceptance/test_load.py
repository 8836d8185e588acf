"""`make load` itself, with a real service: a short run passes, is recorded as documented, and a broken one fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import jsonschema_rs
import psutil
import pytest

from couponapp.issuing.statement import issue
from loadtest.driver.usage import watching
from loadtest.load import ledger
from loadtest.load.options import parse
from loadtest.load.plans import Site
from loadtest.load.workers import LEAD_S, Workers
from loadtest.testbed.service import Service, running_service
from tests.support.servers import ROOT, wait_until

SCHEMA = json.loads((ROOT / "docs/load-record.schema.json").read_text())
SHORT = ("--rate", "80", "--seconds", "2", "--users", "90")


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running_service() as service:
        yield service


@pytest.fixture(scope="module")
def port(service: Service) -> int:
    return service.start_web()


def run(out: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loadtest.load", *arguments, "--out", str(out)]
    environment = {**os.environ, **environ}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110, check=False)


def record_in(out: Path) -> dict[str, Any]:
    (directory,) = out.iterdir()
    record: dict[str, Any] = json.loads((directory / "record.json").read_text())
    jsonschema_rs.validator_for(SCHEMA).validate(record)
    assert {path.name for path in directory.iterdir() if path.suffix != ".log"} == {
        "record.json",
        "answers.csv.gz",
        "report.html",
        "report.txt",
        *(f"{name}.png" for name in ("answers", "latencies", "processors", "memory")),
    }
    return record


def checks_of(record: dict[str, Any]) -> dict[str, bool]:
    return {check["name"]: check["kept"] for check in record["verdict"]["checks"]}


def test_a_short_load_is_exact_and_leaves_the_documented_record(tmp_path: Path) -> None:
    done = run(tmp_path, *SHORT, "--stock", "30", "--generators", "2")
    record = record_in(tmp_path)
    kept = checks_of(record)
    # Whether this machine was fast enough is for `make load` to say, not for a test.
    kept.pop("attempts in time")
    assert all(kept.values()), done.stdout + done.stderr
    assert done.returncode == (0 if record["verdict"]["kept"] else 1)
    assert ("every promise was kept" in done.stdout) == record["verdict"]["kept"]
    assert "answered" in done.stdout
    assert record["answers"]["count"] == 160
    assert record["answers"]["issued"] == record["books"]["issued"] == 30
    assert [one["count"] for one in record["generator"]] == [80, 80]
    assert len(list(tmp_path.glob("*/worker.log"))) == len(list(tmp_path.glob("*/web-*.log"))) == 1
    roles = record["usage"][-1]["roles"]
    assert set(roles) == {"web", "postgres", "redis", "worker", "generator"}
    assert all(used["rss_bytes"] for used in roles.values())


def test_a_service_elsewhere_gets_the_load_with_its_address_coupon_and_secret(
    service: Service, port: int, tmp_path: Path
) -> None:
    coupon_id = service.new_coupon(20)
    target = f"http://127.0.0.1:{port}"
    secret = service.environ["COUPON_JWT_SECRET"]
    done = run(tmp_path, "sold-out", *SHORT, "--target", target, "--coupon", str(coupon_id), COUPON_JWT_SECRET=secret)
    record = record_in(tmp_path)
    assert record["configuration"]["target"] == f"127.0.0.1:{port}"
    assert (record["scenario"]["stock"], record["books"]) == (20, None)
    assert record["answers"]["issued"] == 20
    assert secret not in json.dumps(record)
    assert f"flask coupons verify {coupon_id}" in done.stdout
    missing = run(tmp_path, "--target", target, "--coupon", "999999", COUPON_JWT_SECRET=secret)
    assert missing.returncode == 1
    assert "shows no coupon 999999" in missing.stderr


def test_a_run_that_is_terminated_leaves_no_process_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "loadtest.load", "--rate", "20", "--seconds", "60", "--out", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        # A process that has ended prints nothing more.
        wait_until(lambda: (line := process.stdout.readline()) == "" or "answered" in line, timeout_s=90, what="a line")
        assert process.poll() is None
        started = psutil.Process(process.pid).children(recursive=True)
        assert len(started) > 5
        process.terminate()
        process.wait(30)
        _, alive = psutil.wait_procs(started, timeout=10)
    assert alive == []
    assert process.returncode != 0


def test_the_ledger_holds_what_the_database_holds(service: Service) -> None:
    coupon_id = service.new_coupon(2)
    issue(service.pool, coupon_id, "kim")
    held = ledger.read_when_notified(service.pool, coupon_id, timeout_s=0.1, progress=lambda _: None)
    assert (held.total, held.issued, held.waiting, held.early, held.violations) == (2, 1, 1, 0, [])
    assert set(held.owners) == {"kim"}
    service.pool.execute("UPDATE coupon_stock SET remaining = 2 WHERE coupon_id = %s", [coupon_id])
    service.pool.execute("UPDATE coupons SET opens_at = now() + interval '1 hour' WHERE id = %s", [coupon_id])
    worse = ledger.read(service.pool, coupon_id)
    assert (len(worse.violations), worse.early) == (1, 1)
    service.pool.execute("UPDATE coupon_stock SET remaining = 1 WHERE coupon_id = %s", [coupon_id])


def test_a_generator_process_that_dies_is_reported_and_not_waited_for(service: Service, port: int) -> None:
    options = parse(["incident", "--generators", "2"])
    with closing(Workers(options, service.environ["COUPON_JWT_SECRET"])) as generators:
        generators.wait_until_ready()
        psutil.Process(generators.pids[1]).kill()
        with pytest.raises(RuntimeError, match="terminated abruptly"):
            generators.send(Site(port, service.new_coupon(1)), time.perf_counter() + LEAD_S, lambda *_: None)


def test_the_usage_of_processes_is_sampled_by_role() -> None:
    busy = "import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'while True: pass'])\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", busy]) as process:
        busy_children = psutil.Process(process.pid).children
        try:
            both = [psutil.Process(process.pid), *wait_until(busy_children, timeout_s=30, what="its child")]
            with watching({"busy": lambda: iter(both), "none": lambda: iter(())}, interval_s=0.2) as sampler:
                wait_until(lambda: len(sampler.samples) >= 3, timeout_s=30, what="three samples")
        finally:
            for child in psutil.Process(process.pid).children():
                child.kill()
            process.kill()
    last = sampler.samples[-1].roles
    assert last["busy"].cpu_percent > last["busy"].busiest_percent > 0
    assert last["busy"].rss_bytes > 1_000_000
    assert last["none"].cpu_percent == 0
