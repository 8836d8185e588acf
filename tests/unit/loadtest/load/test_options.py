"""The options of `make load`."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtest.load import options
from loadtest.load.plans import Site
from loadtest.load.scenarios import SCENARIOS

THREEFOLD = SCENARIOS["threefold"]


def test_options_change_the_scenario_and_the_number_of_generators_follows_the_rate() -> None:
    given = options.parse(["tenfold", "--rate", "3000", "--seconds", "5", "--stock", "7", "--users", "9"])
    assert (given.scenario.rate_per_s, given.scenario.seconds, given.scenario.stock) == (3000, 5, 7)
    assert given.generators == 4
    assert given.target is None
    assert options.parse([]).scenario == THREEFOLD


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-scenario"],
        ["--rate", "0"],
        ["--rate", "nan"],
        ["--seconds", "0"],
        ["--seconds", "3601"],
        ["--users", "0"],
        ["--stock", "-1"],
        ["--rate", "100000"],
        ["--web", "0"],
        ["--generators", "0"],
        ["--connections", "0"],
        ["opening", "--seconds", "8"],
        ["opening", "--target", "http://shop.example", "--coupon", "1"],
        ["--target", "https://shop.example", "--coupon", "1"],
        ["--target", "http://shop.example"],
        ["--target", "http://shop.example:99999", "--coupon", "1"],
        ["--target", "http://shop.example", "--coupon", "1"],
        ["--target", "http://shop.example", "--coupon", "1", "--secret-file", "/no/such/file"],
    ],
)
def test_a_wrong_option_stops_before_anything_is_started(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COUPON_JWT_SECRET", raising=False)
    with pytest.raises(SystemExit) as stopped:
        options.parse(arguments)
    assert stopped.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_an_address_given_with_coupon_and_secret_is_the_target(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of-32-bytes-or-more-for-hs256-tokens\n")
    given = options.parse(["--target", "http://shop.example:8080", "--coupon", "7", "--secret-file", str(secret)])
    assert given.target == options.Target(Site(8080, 7, "shop.example"), "of-32-bytes-or-more-for-hs256-tokens")
