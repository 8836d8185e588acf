"""The operator's switch of the circuit breaker reaches every process, and holds until it is set back."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.servers import ROOT, Web, running_web, wait_until

NewCoupon = Callable[..., int]


def flask(environ: dict[str, str], *arguments: str) -> Any:
    command = [sys.executable, "-m", "flask", *arguments, "--json"]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout)


def gauges(web: Web, name: str, **labels: str) -> dict[str, float]:
    """A gauge's values by process."""
    found = {}
    for line in web.request("GET", "/metrics").body.decode().splitlines():
        match = re.fullmatch(rf"{name}{{(.*)}} (\S+)", line)
        if match and labels.items() <= (seen := dict(re.findall(r'(\w+)="([^"]*)"', match[1]))).items():
            found[seen["pid"]] = float(match[2])
    return found


def all_are_forced(web: Web, forced: str) -> bool:
    values = gauges(web, "coupon_breaker_forced", breaker="issue", forced=forced)
    return len(values) == 2 and set(values.values()) == {1.0}


def test_one_command_reaches_every_process_of_every_host_and_is_kept_across_restarts(
    tmp_path: Path, environ: dict[str, str], new_coupon: NewCoupon, token_of: Callable[[str], str]
) -> None:
    path = f"/api/v1/coupons/{new_coupon(total=1000)}/issue"
    users = iter(range(10_000))

    def issues(web: Web) -> bool:
        return web.request("POST", path, token=token_of(f"user-{next(users)}")).status == 201

    with running_web(tmp_path, environ) as one, running_web(tmp_path, environ) as another:
        for web in (one, another):
            assert issues(web)
            wait_until(lambda web=web: all_are_forced(web, "auto"), timeout_s=20, what="nothing is forced")
        assert flask(environ, "breaker", "force", "open", "--note", "minji: failover at 15:00")["forced"] == "open"
        for web in (one, another):
            wait_until(lambda web=web: all_are_forced(web, "open"), timeout_s=20, what="all processes follow")
            assert not any(issues(web) for _ in range(8))
            assert "switch breaker.issue: not set → open" in web.log.read_text()
            wait_until(
                lambda web=web: sum(gauges(web, "coupon_breaker_refused_calls", breaker="issue").values()) == 8,
                timeout_s=20,
                what="refusals are counted",
            )
            assert set(gauges(web, "coupon_breaker_state", state="open").values()) == {1.0}
            for name in ("window_calls", "failure_percent", "slow_percent"):
                assert len(gauges(web, f"coupon_breaker_{name}", breaker="issue")) == 2, name
        assert max(gauges(one, "coupon_switches_age_seconds").values()) < 20
    with running_web(tmp_path, environ, processes=1) as restarted:
        assert not any(issues(restarted) for _ in range(8))
        flask(environ, "breaker", "force", "auto")
        wait_until(lambda: all(issues(restarted) for _ in range(4)), timeout_s=20, what="it issues again")
