"""A load run that keeps every promise; tests make it worse."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from loadtest.driver.generator import Result
from loadtest.driver.usage import Sample, Used
from loadtest.load import record
from loadtest.load.ledger import Ledger
from loadtest.load.promises import judge
from loadtest.load.record import Run
from loadtest.load.scenarios import ISSUE, SCENARIOS, Promises
from loadtest.results.machine import machine

SECONDS = 30
STRICT = replace(
    SCENARIOS["threefold"],
    seconds=SECONDS,
    stock=100,
    promises=Promises(
        issue_p99_ms=150,
        refused_p99_ms=100,
        sells_out=True,
        notified_s=60,
        goodput_of_peak=0.9,
        memory_growth=0.1,
        spares_others=True,
        past_limits=2,
        opens_on_time=True,
    ),
)


def answer(number: int, code: str, status: int, *, latency_s: float = 0.02, issuance: str = "") -> Result:
    """Return one of three hundred results, ten in each second."""
    at_s = number / 10
    return Result(at_s, ISSUE, latency_s, status, code, f"user-{number}", sent_s=at_s, issuance=issuance)


def good_results() -> list[Result]:
    issued = [answer(number, "ISSUED", 201, issuance=f"code-{number}") for number in range(100)]
    return issued + [answer(number, "SOLD_OUT", 409) for number in range(100, 10 * SECONDS)]


def good_ledger() -> Ledger:
    owners = {f"user-{number}": f"code-{number}" for number in range(100)}
    return Ledger(100, 100, 0, [], owners, early=0, slowest_notification_s=3.0)


def samples(last_bytes: int = 200_000_000, *, web_percent: float = 50.0, machine_percent: float = 40.0) -> list[Sample]:
    rss = [200_000_000] * (2 * SECONDS // 3) + [last_bytes] * (SECONDS // 3)
    return [
        Sample(float(at), machine_percent, {"web": Used(web_percent, web_percent, size)}) for at, size in enumerate(rss)
    ]


def good_record() -> dict[str, Any]:
    began_at, sent = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), [good_results()[::2], good_results()[1::2]]
    run = Run(STRICT, began_at, CONFIGURATION, machine(), sent, samples(), good_ledger())
    return record.compose(run, judge(STRICT, run.results, good_ledger(), samples()))


CONFIGURATION = {
    "seed": 1,
    "target": None,
    "web_processes": 2,
    "generator_processes": 2,
    "connections": 1000,
    "settings": {"COUPON_LIMIT_USER": "5/minute"},
}
