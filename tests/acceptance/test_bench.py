"""`make bench` runs and writes a complete result. The figures themselves are not checked here."""

from __future__ import annotations

import argparse
import copy
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain, repeat
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import Client

from couponapp.config import settings
from couponapp.guards.circuit_breaker import Forced
from couponapp.planning import coupons
from couponapp.storage.pool import Pool
from couponapp.web.current import EXTENSION
from loadtest.bench import compare, document, result
from loadtest.bench.__main__ import PARTS, ROUNDS, main
from loadtest.bench.baselines.without import Chooser
from loadtest.bench.servers import Web
from loadtest.bench.turns import Group, Seen, Variant, take_turns
from loadtest.results import files
from tests.support.servers import ROOT

SHORT = ("--rounds", "1", "--seconds", "0.1", "--rows", "10", "100", "1000")
# What each variant lacks, by its segment of the path; everything else must be the same object.
MISSING: dict[str, set[str]] = {
    "": set(),
    "backlog": {"overload"},
    "limits": {"limits"},
    "breaker": {"breaker"},
    "places": {"batcher"},
    "together": {"batcher"},
    "watchdog": {"batcher"},
    "cache": {"catalogue"},
    "sold-out-memory": {"sold_out"},
    "token-memory": {"verifier"},
    "any": {"overload", "limits", "breaker", "batcher", "catalogue", "sold_out", "verifier"},
}


def ratios_in(measured: Mapping[str, Any], part: str) -> set[str]:
    # The names of ratios by rows contain the sizes, which are smaller here; a short turn may lack one kind.
    keys = (key for key in compare.ratios(measured) if key.part == part and "by rows:" not in key.in_words)
    return {key.in_words.rpartition(", ")[0] for key in keys}


@pytest.mark.parametrize("part", PARTS)
def test_a_short_benchmark_measures_every_ratio_of_the_reference(part: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "loadtest.bench", *SHORT, "--only", part, "--out", str(tmp_path)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=115, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (path,) = tmp_path.iterdir()
    measured = result.read(path)
    assert ratios_in(measured, part) == ratios_in(result.read(document.REFERENCE), part)
    for group in measured["groups"]:
        assert f"\n{group['part']}: {group['name']}\n" in ran.stdout
        for one in group["variants"].values():
            assert len(one["rates"]) == 1
            assert one["rates"][0] > 0
            assert len(one["memory"]) == len(one["cpu_ms"]) == 3
            assert all(held["mb"] for held in one["memory"].values())


def test_the_benchmark_fails_where_a_ratio_has_fallen_both_times(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, asked = result.read(document.REFERENCE), []

    def measure(given: argparse.Namespace, parts: Sequence[str]) -> dict[str, Any]:
        asked.append((given.rounds, list(parts)))
        return good

    against = copy.deepcopy(good)
    ratio = against["groups"][0]["ratios"][0]
    ratio[result.ANSWERS].update({name: 2 * figure for name, figure in ratio[result.ANSWERS].items()})
    files.write(tmp_path / "faster.json", against)
    assert main(["--against", str(document.REFERENCE)], measure=measure) == 0
    assert main(["--against", str(tmp_path / "faster.json")], measure=measure) == 1
    assert asked == [(ROUNDS, list(PARTS)), (ROUNDS, list(PARTS)), (2 * ROUNDS, ["core"])]
    said = capsys.readouterr().out.splitlines()
    assert said[-1].startswith("1 of ")
    assert f"«{ratio['of']}» of «{ratio['to']}», {result.ANSWERS}" in said[-2]


@pytest.mark.parametrize(
    "arguments", [("--rounds", "0"), ("--rows", "10", "10", "20"), ("--rows", "1", "2", "3"), ("--only", "x")]
)
def test_a_wrong_option_is_reported(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert arguments[0].removeprefix("--") in capsys.readouterr().err


def test_a_missing_reference_is_reported_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--against", str(tmp_path / "none.json")]) == 2
    assert "none.json" in capsys.readouterr().err


class Teapot(BaseHTTPRequestHandler):
    """Answers 418."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(418)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def teapots() -> Iterator[Web]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Teapot)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Web(server.server_port, {})
    server.shutdown()
    server.server_close()


def turns(web: Web, status: int, stolen: Sequence[float] = (), progress: Callable[[str], object] = str) -> Seen:
    """Measure two rounds of one variant while the host takes these percentages, and then nothing."""
    group = Group("core", "teapots", [Variant("teapot", web, lambda _: "/", status, method="GET", clients=2)], [])
    # Read before each round, where the value does not matter, and after it.
    taken = chain.from_iterable((100.0, percent) for percent in (*stolen, *repeat(0.0, 20)))
    with ThreadPool(1) as sender:
        shown = take_turns(
            group, sender, sign=str, rounds=2, seconds=0.2, progress=progress, stolen=lambda: next(taken)
        )
    return shown["teapot"]


def test_a_variant_with_a_wrong_response_ends_the_run(teapots: Web) -> None:
    assert len(turns(teapots, 418).rates) == 2
    with pytest.raises(RuntimeError, match=r"teapots, teapot: responses were \[418\], not 200 only"):
        turns(teapots, 200)


def test_a_round_in_which_the_host_took_the_processors_is_repeated(teapots: Web) -> None:
    lines: list[str] = []
    warm_up, busy, slightly, quiet = 90.0, 30.0, 4.0, 0.0
    assert turns(teapots, 418, [warm_up, busy, slightly, busy, quiet], lines.append).stolen == [slightly, quiet]
    assert sum("once more, because the host took 30 %" in line for line in lines) == 2


def test_on_a_machine_that_is_always_shared_rounds_count_and_the_share_is_recorded(teapots: Web) -> None:
    seen = turns(teapots, 418, [50.0] * 10)
    assert (len(seen.rates), seen.stolen) == (2, [50.0, 50.0])


@pytest.fixture
def chooser(environ: dict[str, str]) -> Iterator[Chooser]:
    """Return the service with all guards and without each of them; a user may try once a minute."""
    made = Chooser(settings.load({**environ, "COUPON_LIMIT_USER": "1/minute"}))
    yield made
    made.services.close()


def attempt(chooser: Chooser, missing: str, coupon_id: int, token: str) -> str:
    path = f"/~{missing}/api/v1/coupons/{coupon_id}/issue"
    answer = Client(chooser).post(path, headers={"Authorization": f"Bearer {token}"})
    return str(answer.get_json()["code"])


def test_each_variant_lacks_its_guard_and_shares_everything_else(chooser: Chooser) -> None:
    whole = chooser.services
    assert chooser.extensions[EXTENSION] is whole
    for missing, app in chooser.apps.items():
        services = app.extensions[EXTENSION]
        assert (differing(services, whole) | differing(services.issuing, whole.issuing)) - {"issuing"} == MISSING[
            missing
        ]
    assert chooser.apps.keys() == MISSING.keys()


def differing(one: Any, other: Any) -> set[str]:
    return {each.name for each in fields(one) if getattr(one, each.name) is not getattr(other, each.name)}


@pytest.mark.parametrize("missing", MISSING)
def test_each_variant_issues_one_to_a_user(
    missing: str, chooser: Chooser, new_coupon: Callable[..., int], token_of: Callable[[str], str]
) -> None:
    coupon_id, token = new_coupon(total=2), token_of("kim")
    assert attempt(chooser, missing, coupon_id, token) == "ISSUED"
    again = attempt(chooser, missing, coupon_id, token)
    assert again == ("ALREADY_ISSUED" if "limits" in MISSING[missing] else "TOO_MANY_REQUESTS")


def test_a_circuit_that_is_open_refuses_in_every_variant_but_the_one_without_it(
    chooser: Chooser, new_coupon: Callable[..., int], token_of: Callable[[str], str]
) -> None:
    chooser.services.breaker.force(Forced.OPEN)
    coupon_id = new_coupon(total=20)
    for missing, parts in MISSING.items():
        code = attempt(chooser, missing, coupon_id, token_of(f"user of {missing}"))
        assert code == ("ISSUED" if "breaker" in parts else "SERVICE_UNAVAILABLE")


def test_without_the_cache_a_pause_is_seen_at_once(
    chooser: Chooser, pool: Pool, new_coupon: Callable[..., int]
) -> None:
    coupon_id, client = new_coupon(), Client(chooser)
    path = f"/~cache/api/v1/coupons/{coupon_id}"
    assert client.get(path).get_json()["data"]["status"] == "OPEN"
    coupons.pause(pool, coupon_id)
    assert client.get(path).get_json()["data"]["status"] == "PAUSED"
