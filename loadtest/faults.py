"""`make faults`: each fault under load, with what was expected and what was seen."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psutil

from couponapp.planning.verify import verify
from couponapp.storage.pool import Pool, Timeouts
from loadtest.client import request_bytes
from loadtest.generator import Arrival, Result, open_loop
from loadtest.service import Service, running_service

RATE_PER_S = 60
FAULT_AT_S, HEALED_AT_S, END_S = 4.0, 8.0, 18.0
# From the end of the fault: pools heal, the circuit closes again.
RECOVERED_AT_S = HEALED_AT_S + 6.0
CLIENTS = 60
# The deadline of an attempt, and what this machine may add to it.
BOUND_S = 1.5


@dataclass(frozen=True)
class Fault:
    """One thing that breaks.

    Attributes:
        name: what the table calls it.
        expected: in words.
        begin: makes it happen.
        end: undoes it, where it does not end by itself.
        allowed: statuses that may be seen from the fault to the recovery.
    """

    name: str
    expected: str
    begin: Callable[[Service], None]
    end: Callable[[Service], None] = lambda _: None
    allowed: frozenset[int] = field(default_factory=lambda: frozenset({201}))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run every fault; returns 0 when each was borne as expected."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.faults", description=__doc__)
    parser.add_argument("--only", default="", help="faults whose name contains this")
    only = parser.parse_args(arguments).only
    rows = []
    for fault in FAULTS:
        if only in fault.name:
            seen, broken = run(fault)
            rows.append((fault, seen, broken))
            print(f"{'ok    ' if not broken else 'BROKEN'}  {fault.name}: {seen}", flush=True)
            for line in broken:
                print(f"        {line}", flush=True)
    print("\n" + table(rows))
    return 1 if not rows or any(broken for _, _, broken in rows) else 0


def run(fault: Fault) -> tuple[str, list[str]]:
    """Let one fault happen in the middle of a load; what was seen, and what was not as promised."""
    with running_service() as service:
        port = service.start_web()
        coupon_id = service.new_coupon(100_000)
        arrivals = [
            Arrival(number / RATE_PER_S, "issue", _issue(service, coupon_id, number))
            for number in range(int(RATE_PER_S * END_S))
        ]
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            sending = pool.apply_async(_send, (port, arrivals))
            time.sleep(FAULT_AT_S)
            fault.begin(service)
            time.sleep(HEALED_AT_S - FAULT_AT_S)
            fault.end(service)
            results = sending.get(END_S + 60)
        return _tell(results), judge(fault, service, results)


def judge(fault: Fault, service: Service, results: Sequence[Result]) -> list[str]:
    """Every promise that was not kept."""
    broken = []
    for result in results:
        in_trouble = FAULT_AT_S - 1 <= result.at_s <= RECOVERED_AT_S
        if result.status != 201 and not (in_trouble and result.status in fault.allowed):
            broken.append(f"{result.code} at {result.at_s:.1f} s")
        if result.latency_s > BOUND_S:
            broken.append(f"an answer after {result.latency_s:.2f} s at {result.at_s:.1f} s")
    pool = Pool(service.postgres.url, name="judge", max_size=1, timeouts=Timeouts.within(20_000))
    report = verify(pool)
    pool.close()
    told = sum(result.code == "ISSUED" for result in results)
    if told > report.coupons[0]["issued"]:
        broken.append(f"{told} were told ISSUED, but {report.coupons[0]['issued']} are recorded")
    return [*dict.fromkeys(broken + report.violations)][:10]


def table(rows: Sequence[tuple[Fault, str, list[str]]]) -> str:
    """Fault, expected, seen, verdict."""
    lines = [f"{'fault':<28}{'expected':<44}{'verdict':<9}seen"]
    for fault, seen, broken in rows:
        lines.append(f"{fault.name:<28}{fault.expected:<44}{'BROKEN' if broken else 'ok':<9}{seen}")
    return "\n".join(lines)


def _tell(results: Sequence[Result]) -> str:
    counts: dict[str, int] = {}
    for result in results:
        counts[result.code] = counts.get(result.code, 0) + 1
    slowest_s = max(result.latency_s for result in results)
    return ", ".join(f"{count} {code}" for code, count in sorted(counts.items())) + f", slowest {slowest_s:.2f} s"


def _issue(service: Service, coupon_id: int, number: int) -> bytes:
    return request_bytes("POST", f"/api/v1/coupons/{coupon_id}/issue", service.token(f"user-{number}"))


def _send(port: int, arrivals: list[Arrival]) -> list[Result]:
    return open_loop(port, arrivals, clients=CLIENTS)


def _kill_redis(service: Service) -> None:
    assert service.valkey.child is not None
    service.valkey.child.process.kill()


def _start_redis(service: Service) -> None:
    service.valkey.start(service.home)


def _signal_redis(number: signal.Signals) -> Callable[[Service], None]:
    def send(service: Service) -> None:
        assert service.valkey.child is not None
        service.valkey.child.process.send_signal(number)

    return send


def _signal_postgres(number: signal.Signals) -> Callable[[Service], None]:
    def send(service: Service) -> None:
        assert service.postgres.child is not None
        postmaster = psutil.Process(service.postgres.child.process.pid)
        for process in (postmaster, *postmaster.children()):
            process.send_signal(number)

    return send


def _start_postgres(service: Service) -> None:
    assert service.postgres.child is not None
    service.postgres.child.process.wait(10)
    service.postgres.start(service.home)


def _kill_one_web_process(service: Service) -> None:
    os.kill(psutil.Process(service.web.process.pid).children()[0].pid, signal.SIGKILL)


MAY_REFUSE = frozenset({201, 503})
FAULTS = (
    Fault("Redis killed", "no 5xx, issuing goes on", _kill_redis, _start_redis),
    Fault("Redis frozen", "no 5xx, issuing goes on", _signal_redis(signal.SIGSTOP), _signal_redis(signal.SIGCONT)),
    Fault(
        "PostgreSQL frozen",
        "503 within 1.5 s, issues 6 s after the thaw",
        _signal_postgres(signal.SIGSTOP),
        _signal_postgres(signal.SIGCONT),
        MAY_REFUSE,
    ),
    Fault(
        "PostgreSQL killed",
        "503 within 1.5 s, nothing told is missing",
        _signal_postgres(signal.SIGKILL),
        _start_postgres,
        MAY_REFUSE,
    ),
    # 0: the answers that the killed process had not sent yet.
    Fault(
        "one web process killed", "only its own answers are lost", _kill_one_web_process, allowed=frozenset({201, 0})
    ),
)


if __name__ == "__main__":
    sys.exit(main())
