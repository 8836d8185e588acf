"""The commands: their effect, their output, and one line for every error."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from couponapp import cli
from couponapp.auth import tokens
from couponapp.config import settings
from couponapp.issuing.statement import issue
from couponapp.planning import coupons
from couponapp.storage.pool import Pool
from tests.support.servers import JWT_SECRET, ROOT

NewCoupon = Callable[..., int]
Run = Callable[..., Result]

HALF_AN_HOUR = timedelta(minutes=30)


@pytest.fixture
def run(app: Flask, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `flask …` in this process, with the environment of the service and nothing else of ours."""
    for spec in settings.specs():
        monkeypatch.delenv(str(spec.metadata["env"]), raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    cli.register(app)
    runner = app.test_cli_runner()
    return lambda *arguments: runner.invoke(args=[str(argument) for argument in arguments])


def good(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def parsed(result: Result) -> Any:
    return json.loads(good(result))


def one_line(result: Result) -> str:
    """The one line in which a command says what is wrong."""
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr.strip()


NEW = ("coupons", "create", "--name", "치킨 쿠폰", "--total", "100")


# Creating


def test_create_creates_a_coupon_that_opens_now(run: Run, pool: Pool) -> None:
    made = parsed(run(*NEW, "--closes-at", "+1h", "--json"))
    found = coupons.show(pool, made["id"])
    assert (found["name"], found["total"], found["remaining"]) == ("치킨 쿠폰", 100, 100)
    assert found["closes_at"] - found["opens_at"] == timedelta(hours=1)
    assert issue(pool, made["id"], "kim").outcome == "ISSUED"


@pytest.mark.parametrize(
    ("opens", "closes", "open_for"),
    [
        ("now", "+30m", HALF_AN_HOUR),
        ("+10m", "+40m", HALF_AN_HOUR),
        ("+0s", "+1800s", HALF_AN_HOUR),
        ("+1d", "+7d", timedelta(days=6)),
        ("2030-01-01T10:00", "2030-01-01T10:30", HALF_AN_HOUR),
        ("2030-01-01T10:00+09:00", "2030-01-01T01:30Z", HALF_AN_HOUR),
        ("2030-01-01", "2030-01-02", timedelta(days=1)),
    ],
)
def test_times_are_offsets_from_now_or_iso_8601(
    run: Run, pool: Pool, opens: str, closes: str, open_for: timedelta
) -> None:
    made = parsed(run(*NEW, "--opens-at", opens, "--closes-at", closes, "--json"))
    found = coupons.show(pool, made["id"])
    assert found["closes_at"] - found["opens_at"] == open_for


@pytest.mark.parametrize(("zone", "utc"), [("Asia/Seoul", "01:00"), ("UTC", "10:00"), ("America/New_York", "15:00")])
def test_a_time_without_an_offset_is_in_the_configured_time_zone(
    run: Run, pool: Pool, monkeypatch: pytest.MonkeyPatch, zone: str, utc: str
) -> None:
    monkeypatch.setenv("COUPON_TIME_ZONE", zone)
    made = parsed(run(*NEW, "--opens-at", "2030-01-01T10:00", "--closes-at", "2030-02-01", "--json"))
    opens_at = coupons.show(pool, made["id"])["opens_at"]
    assert opens_at == datetime.fromisoformat(f"2030-01-01T{utc}:00+00:00")
    assert made["opens_at"].startswith("2030-01-01T10:00:00")


BAD_COUPONS = {
    "name": [("--name", ""), ("--name", "  "), ("--name", "x" * 201), ("--name", "a\nb"), ("--name", "\udcff")],
    "total": [("--total", "-1"), ("--total", str(2**31)), ("--total", "9" * 30)],
    "valid-days": [("--valid-days", "0"), ("--valid-days", "3651")],
    "opens-at": [
        ("--opens-at", bad)
        for bad in ("", "soon", "+", "10m", "+10", "+1.5h", "+9999999d", "2030-13-01", "2030-01-01T10:00+99:99")
    ]
    + [("--opens-at", "0001-01-01T00:00"), ("--opens-at", "1999-12-31")],
    "closes-at": [
        ("--closes-at", bad)
        for bad in ("never", "now", "-10m", "2020-01-01", "9999-12-31T23:59:59Z", "9999-12-31", "10000-01-01")
    ],
}


def test_a_bad_value_is_one_line_that_names_it_and_creates_nothing(run: Run, pool: Pool) -> None:
    for named, cases in BAD_COUPONS.items():
        for case in cases:
            line = one_line(run(*NEW, "--closes-at", "+1h", *case))
            assert line.startswith(f"Error: {named}: "), (case, line)
    assert coupons.list_all(pool) == []


def test_a_coupon_at_either_end_of_time_can_be_shown_everywhere(run: Run, app: Flask) -> None:
    made = parsed(run(*NEW, "--opens-at", "2000-01-02", "--closes-at", "8999-12-31", "--valid-days", "3650", "--json"))
    client = app.test_client()
    for path in ("/", f"/coupons/{made['id']}", "/api/v1/coupons", f"/api/v1/coupons/{made['id']}"):
        assert client.get(path).status_code == 200, path


def test_an_unknown_option_or_a_bad_number_is_refused_with_the_usage(run: Run) -> None:
    for arguments in (
        ("coupons", "create"),
        (*NEW, "--closes-at", "+1h", "--total", "ten"),
        ("coupons", "show", "0"),
        ("coupons", "show", str(2**63)),
        ("coupons", "show", "１x"),
        ("coupons", "restock", "1", "many"),
        ("coupons", "list", "--nonsense"),
        ("coupons", "delete", "1"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2, arguments
        assert result.stderr.startswith("Usage: "), arguments


# Showing and changing


def test_list_shows_every_coupon(run: Run, new_coupon: NewCoupon) -> None:
    assert good(run("coupons", "list")) == "no coupons\n"
    assert parsed(run("coupons", "list", "--json")) == []
    first, second = new_coupon(name="하나"), new_coupon(name="둘", total=7)
    assert [row["id"] for row in parsed(run("coupons", "list", "--json"))] == [first, second]
    head, *lines = good(run("coupons", "list")).splitlines()
    assert head.split() == [
        "id",
        "name",
        "total",
        "remaining",
        "issued",
        "opens_at",
        "closes_at",
        "valid_days",
        "state",
        "status",
    ]
    assert [line.split()[1:3] for line in lines] == [["하나", "10"], ["둘", "7"]]


def test_show_counts_what_is_issued(run: Run, new_coupon: NewCoupon, pool: Pool) -> None:
    coupon_id = new_coupon(total=5)
    issue(pool, coupon_id, "kim")
    shown = parsed(run("coupons", "show", coupon_id, "--json"))
    assert (shown["total"], shown["issued"], shown["remaining"], shown["state"]) == (5, 1, 4, "open")
    assert "open" in good(run("coupons", "show", coupon_id))


def test_pause_resume_and_close_change_the_state(run: Run, new_coupon: NewCoupon) -> None:
    coupon_id = new_coupon()
    for command, state in (("pause", "paused"), ("pause", "paused"), ("resume", "open"), ("close", "closed")):
        assert parsed(run("coupons", command, coupon_id, "--json"))["state"] == state, command
    for command in ("pause", "resume"):
        assert one_line(run("coupons", command, coupon_id)) == f"Error: coupon {coupon_id} is closed"


def test_restock_adds_pieces(run: Run, new_coupon: NewCoupon) -> None:
    coupon_id = new_coupon(total=5)
    shown = parsed(run("coupons", "restock", coupon_id, 3, "--json"))
    assert (shown["total"], shown["remaining"]) == (8, 8)
    for pieces in (0, 2**31, 2**31 - 1):
        assert one_line(run("coupons", "restock", coupon_id, pieces)).startswith("Error: pieces: "), pieces


def test_an_unknown_coupon_is_one_line_for_every_command(run: Run) -> None:
    for command in ("show", "pause", "resume", "close", "verify", "export"):
        assert one_line(run("coupons", command, 4711)) == "Error: there is no coupon 4711", command
    assert one_line(run("coupons", "restock", 4711, 1)) == "Error: there is no coupon 4711"


# Verifying


def test_verify_is_clean_after_normal_use(run: Run, new_coupon: NewCoupon, pool: Pool) -> None:
    coupon_id = new_coupon(total=2)
    for user in ("kim", "lee", "park"):
        issue(pool, coupon_id, user)
    report = parsed(run("coupons", "verify", "--json"))
    counts = {"coupon_id": coupon_id, "total": 2, "issued": 2, "remaining": 0, "notified": 0, "waiting": 2}
    assert report == {"clean": True, "coupons": [counts], "violations": []}
    assert good(run("coupons", "verify", coupon_id)).endswith("clean\n")


BREAKING = {
    "UPDATE coupon_stock SET remaining = remaining + 1": "coupon {}: 1 issued and 2 remaining are not the total of 2",
    "DELETE FROM outbox": "coupon {}: 1 issuances have no outbox row",
    "DELETE FROM coupon_stock": "coupon {}: there is no stock",
    "INSERT INTO outbox (kind, issuance_id) VALUES ('issuance.issued', 4711)": "outbox row 2 belongs to nothing",
    "INSERT INTO issuances (coupon_id, user_id, code, expires_at) VALUES (4711, 'x', repeat('x', 20), now())": (
        "issuance 2 belongs to nothing"
    ),
}


@pytest.mark.parametrize("statement", BREAKING)
def test_verify_exits_with_1_and_names_the_row_that_breaks_an_invariant(
    run: Run, new_coupon: NewCoupon, pool: Pool, statement: Any
) -> None:
    coupon_id = new_coupon(total=2)
    issue(pool, coupon_id, "kim")
    assert run("coupons", "verify").exit_code == 0
    pool.execute(statement)
    violation = BREAKING[statement].format(coupon_id)
    result, as_json = run("coupons", "verify"), run("coupons", "verify", "--json")
    assert (result.exit_code, as_json.exit_code) == (1, 1)
    assert f"BROKEN  {violation}\n1 invariants are broken\n" in result.stdout
    report = json.loads(as_json.stdout)
    assert (report["clean"], report["violations"]) == (False, [violation])


def test_verify_of_one_coupon_checks_only_that_one(run: Run, new_coupon: NewCoupon, pool: Pool) -> None:
    broken, whole = new_coupon(), new_coupon()
    pool.execute("UPDATE coupon_stock SET remaining = remaining - 1 WHERE coupon_id = %s", [broken])
    assert run("coupons", "verify", broken).exit_code == 1
    assert run("coupons", "verify", whole).exit_code == 0


# Exporting


def test_export_is_csv_of_every_issuance(run: Run, new_coupon: NewCoupon, pool: Pool) -> None:
    coupon_id, other = new_coupon(), new_coupon()
    held = [issue(pool, coupon_id, user).issuance for user in ("kim", "이,영희", '"park"')]
    issue(pool, other, "choi")
    rows = list(csv.DictReader(io.StringIO(good(run("coupons", "export", coupon_id)))))
    assert list(rows[0]) == ["id", "coupon_id", "user_id", "code", "issued_at", "expires_at", "sent_at"]
    assert [row["user_id"] for row in rows] == ["kim", "이,영희", '"park"']
    assert [row["code"] for row in rows] == [one.code for one in held if one]
    assert rows[0]["sent_at"] == ""
    lines = good(run("coupons", "export", coupon_id, "--json")).splitlines()
    assert [json.loads(line)["user_id"] for line in lines] == ["kim", "이,영희", '"park"']


def test_export_without_issuances_is_the_header_only(run: Run, new_coupon: NewCoupon) -> None:
    assert good(run("coupons", "export", new_coupon())) == "id,coupon_id,user_id,code,issued_at,expires_at,sent_at\n"


@pytest.mark.parametrize("user", ["=1+1", "+1", "-1", "@SUM(A1)"])
def test_a_users_name_does_not_become_a_formula(run: Run, new_coupon: NewCoupon, pool: Pool, user: str) -> None:
    coupon_id = new_coupon()
    issue(pool, coupon_id, user)
    rows = list(csv.DictReader(io.StringIO(good(run("coupons", "export", coupon_id)))))
    assert rows[0]["user_id"] == f"'{user}"


# The circuit breaker


def test_the_breaker_follows_its_own_rules_until_it_is_forced(run: Run) -> None:
    assert parsed(run("breaker", "show", "--json")) == {"forced": "auto", "changed_at": None, "note": ""}
    assert good(run("breaker", "show")).splitlines()[1] == "auto"


def test_force_prints_the_setting_its_time_and_its_note(run: Run, pool: Pool) -> None:
    for forced, note in (("open", "민지: 15시 장애 조치"), ("closed", ""), ("closed", "again"), ("auto", "done")):
        before = parsed(run("breaker", "show", "--json"))["changed_at"]
        told = parsed(run("breaker", "force", forced, "--note", note, "--json"))
        assert (told["forced"], told["note"]) == (forced, note)
        assert datetime.fromisoformat(told["changed_at"]) >= datetime.fromisoformat(before or told["changed_at"])
        assert parsed(run("breaker", "show", "--json")) == told
    assert good(run("breaker", "show")).splitlines()[1].split()[0::2] == ["auto", "done"]


def test_an_unknown_breaker_setting_is_refused(run: Run) -> None:
    for arguments in (("ajar",), ("",), (), ("OPEN",), ("open", "closed")):
        result = run("breaker", "force", *arguments)
        assert result.exit_code == 2, arguments
        assert result.stderr.startswith("Usage: "), arguments
    for note in ("x" * 201, "a\nb", "\udcff"):
        assert one_line(run("breaker", "force", "open", "--note", note)).startswith("Error: note: ")
    assert parsed(run("breaker", "show", "--json"))["forced"] == "auto"


# Tokens and migrations


def test_token_prints_a_token_that_the_service_accepts(run: Run, app: Flask) -> None:
    token = good(run("token", "김민준", "--ttl", "10m")).strip()
    response = app.test_client().get("/api/v1/me/coupons", headers={"Authorization": f"Bearer {token}"})
    assert response.status_code == 200
    with_role = parsed(run("token", "kim", "--role", "admin", "--ttl", "7d", "--json"))
    assert (with_role["user"], with_role["expiresInSeconds"]) == ("kim", 7 * 86_400)
    assert tokens.verifier(settings.load()).verify(with_role["token"]) == "kim"


def test_a_bad_user_or_span_is_one_line(run: Run) -> None:
    for arguments, named in (
        (("",), "USER"),
        (("x" * 129,), "USER"),
        (("a\nb",), "USER"),
        (("kim", "--ttl", "0s"), "ttl"),
        (("kim", "--ttl", "1w"), "ttl"),
        (("kim", "--ttl", "１h"), "ttl"),
        (("kim", "--ttl", ""), "ttl"),
    ):
        assert one_line(run("token", *arguments)).startswith(f"Error: {named}: "), arguments


def test_without_a_shared_secret_there_are_no_tokens(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUPON_DEMO_LOGIN", "0")
    monkeypatch.setenv("COUPON_JWT_SECRET", "")
    monkeypatch.setenv("COUPON_JWT_JWKS", "keys.json")
    assert one_line(run("token", "kim")) == "Error: COUPON_JWT_SECRET is not set"


def test_migrate_reports_that_nothing_is_missing(run: Run) -> None:
    assert good(run("migrate")) == "up to date\n"
    assert parsed(run("migrate", "--json")) == {"applied": []}


# As a process of its own


def flask(environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flask", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False)


def test_a_person_can_create_a_coupon_from_the_shell(environ: dict[str, str], pool: Pool) -> None:
    done = flask(environ, *NEW, "--opens-at", "now", "--closes-at", "+1h", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert coupons.show(pool, json.loads(done.stdout)["id"])["name"] == "치킨 쿠폰"


def test_a_broken_invariant_is_the_exit_code_of_the_process(
    environ: dict[str, str], new_coupon: NewCoupon, pool: Pool
) -> None:
    coupon_id = new_coupon()
    pool.execute("UPDATE coupon_stock SET remaining = remaining - 1")
    done = flask(environ, "coupons", "verify")
    assert done.returncode == 1
    assert f"BROKEN  coupon {coupon_id}: " in done.stdout


def test_a_bad_setting_is_one_line_of_the_process(environ: dict[str, str]) -> None:
    done = flask({**environ, "COUPON_JWT_SECRET": JWT_SECRET[:10]}, "coupons", "list")
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr == "couponapp: COUPON_JWT_SECRET must have at least 32 bytes\n"
