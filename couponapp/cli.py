"""The commands: `flask coupons …`, `flask breaker …`, `flask token …`, `flask migrate`."""

from __future__ import annotations

import csv
import functools
import json
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

import click
from flask import Flask
from flask.cli import AppGroup

from couponapp import settings, tokens
from couponapp.errors import CouponAppError, InvalidRequest, Unauthenticated
from couponapp.guards.breaker import Forced
from couponapp.notifications_cli import notification_commands
from couponapp.planning import coupons, switches, verify
from couponapp.storage import migrations
from couponapp.storage.pool import Pool, Row, Timeouts

# A report over a million rows takes its time; that nobody answers is said soon.
ADMIN_TIMEOUTS = Timeouts(total_s=65.0, wait_s=5.0, lock_ms=5_000, statement_ms=60_000)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def register(app: Flask) -> None:
    """Add the commands to `flask`."""
    app.cli.add_command(coupon_commands)
    app.cli.add_command(breaker_commands)
    app.cli.add_command(notification_commands)
    app.cli.add_command(token)
    app.cli.add_command(migrate)


def one_line_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turn an error of ours into one line and exit code 1."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except CouponAppError as error:
            raise click.ClickException(str(error)) from error

    return wrapped


coupon_commands = AppGroup("coupons", help="Create and run coupon events.")
as_json = click.option("--json", "json_output", is_flag=True, help="Print JSON.")


COUPON_ID = click.IntRange(1, 2**63 - 1)  # PostgreSQL's bigint
coupon_id = click.argument("coupon_id", metavar="ID", type=COUPON_ID)


@coupon_commands.command()
@click.option("--name", required=True, help="What the users see, 1 to 200 characters.")
@click.option("--total", required=True, type=int, help="How many pieces.")
@click.option("--opens-at", default="now", show_default=True, help="ISO 8601, now, or an offset such as +10m.")
@click.option("--closes-at", required=True, help="ISO 8601, or an offset such as +2h.")
@click.option("--valid-days", default=30, show_default=True, help="Days for which an issued coupon is valid.")
@as_json
@one_line_errors
def create(name: str, total: int, opens_at: str, closes_at: str, valid_days: int, json_output: bool) -> None:
    """Create a coupon. Times without an offset are in COUPON_TIME_ZONE."""
    pool = _pool()
    new_id = coupons.create(
        pool,
        name=name,
        total=total,
        opens_at=parse_moment("opens-at", opens_at),
        closes_at=parse_moment("closes-at", closes_at),
        valid_days=valid_days,
    )
    _print_coupons([coupons.show(pool, new_id)], json_output, single=True)


@coupon_commands.command("list")
@as_json
@one_line_errors
def list_coupons(json_output: bool) -> None:
    """All coupons."""
    _print_coupons(coupons.list_all(_pool()), json_output)


@coupon_commands.command()
@coupon_id
@as_json
@one_line_errors
def show(coupon_id: int, json_output: bool) -> None:
    """One coupon."""
    _print_coupons([coupons.show(_pool(), coupon_id)], json_output, single=True)


def _changing(name: str, change: Callable[[Pool, int], None]) -> None:
    @coupon_commands.command(name, help=(change.__doc__ or "").split("\n", 1)[0])
    @coupon_id
    @as_json
    @one_line_errors
    def command(coupon_id: int, json_output: bool) -> None:
        pool = _pool()
        change(pool, coupon_id)
        _print_coupons([coupons.show(pool, coupon_id)], json_output, single=True)


_changing("pause", coupons.pause)
_changing("resume", coupons.resume)
_changing("close", coupons.close)


@coupon_commands.command()
@coupon_id
@click.argument("pieces", metavar="N", type=int)
@as_json
@one_line_errors
def restock(coupon_id: int, pieces: int, json_output: bool) -> None:
    """Add N pieces."""
    pool = _pool()
    coupons.restock(pool, coupon_id, pieces)
    _print_coupons([coupons.show(pool, coupon_id)], json_output, single=True)


@coupon_commands.command("verify")
@click.argument("coupon_id", metavar="[ID]", type=COUPON_ID, required=False)
@as_json
@one_line_errors
def verify_coupons(coupon_id: int | None, json_output: bool) -> None:
    """Check the invariants; exit 1 and the rows that break them."""
    report = verify.verify(_pool(), coupon_id)
    if json_output:
        _print_json({"clean": report.clean, "coupons": report.coupons, "violations": report.violations})
    else:
        _print_table(report.coupons)
        for violation in report.violations:
            click.echo(f"BROKEN  {violation}")
        click.echo("clean" if report.clean else f"{len(report.violations)} invariants are broken")
    if not report.clean:
        sys.exit(1)


@coupon_commands.command()
@coupon_id
@as_json
@one_line_errors
def export(coupon_id: int, json_output: bool) -> None:
    """Every issuance of a coupon, as CSV (or one JSON object a line) on standard output."""
    columns = ["id", "coupon_id", "user_id", "code", "issued_at", "expires_at", "sent_at"]
    rows, shown = coupons.export(_pool(), coupon_id), _shower()
    if json_output:
        for row in rows:
            click.echo(json.dumps(row, ensure_ascii=False, default=shown))
        return
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_safe_cell(shown(row[column])) for column in columns])


def _safe_cell(value: Any) -> Any:
    """A user's name must not become a formula in a spreadsheet (OWASP, «CSV Injection»)."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


breaker_commands = AppGroup("breaker", help="The circuit breaker around issuing, in all web processes.")


@breaker_commands.command("force")
@click.argument("forced", metavar="open|closed|auto", type=click.Choice([str(one) for one in Forced]))
@click.option("--note", default="", help="Who does it and why, for those who find it later.")
@as_json
@one_line_errors
def force_breaker(forced: str, note: str, json_output: bool) -> None:
    """Refuse all attempts, let all through, or leave it to its rules.

    Every web process follows within a second, and so does one that starts later.
    """
    pool = _pool()
    switches.turn(pool, switches.ISSUE_BREAKER, forced, note=note)
    _print_breaker(pool, json_output)


@breaker_commands.command("show")
@as_json
@one_line_errors
def show_breaker(json_output: bool) -> None:
    """What it is forced to. What each process does is in /metrics."""
    _print_breaker(_pool(), json_output)


def _print_breaker(pool: Pool, json_output: bool) -> None:
    turned = switches.show(pool, switches.ISSUE_BREAKER) or {"value": str(Forced.NO), "note": "", "changed_at": None}
    shown = {"forced": turned["value"], "changed_at": turned["changed_at"], "note": turned["note"]}
    _print_json(shown) if json_output else _print_table([shown])


@click.command(help="Print a token for USER, signed with COUPON_JWT_SECRET.")
@click.argument("user")
@click.option("--role", default="", help="The role claim, for example admin.")
@click.option("--ttl", default="1h", show_default=True, help="How long it is valid: 30s, 10m, 1h, 7d.")
@as_json
@one_line_errors
def token(user: str, role: str, ttl: str, json_output: bool) -> None:
    """Print a token for a user."""
    ttl_s = _parse_span(ttl)
    if ttl_s is None or ttl_s < 1:
        raise InvalidRequest("ttl: a span such as 30s, 10m, 1h or 7d")
    try:
        signed = tokens.sign(settings.load(), user, ttl_s=ttl_s, role=role)
    except Unauthenticated as error:
        raise InvalidRequest("USER: 1 to 128 printable characters") from error
    if json_output:
        _print_json({"token": signed, "user": user, "expiresInSeconds": ttl_s})
    else:
        click.echo(signed)


@click.command(help="Bring the database up to the newest migration.")
@as_json
@one_line_errors
def migrate(json_output: bool) -> None:
    """Apply what is missing of `migrations/`."""
    config = settings.load()
    config.require("database_url")
    applied = [f"{m.version:04}_{m.name}" for m in migrations.migrate(config.database_url)]
    if json_output:
        _print_json({"applied": applied})
    else:
        click.echo("\n".join(f"applied {name}" for name in applied) or "up to date")


def parse_moment(option: str, text: str) -> datetime | float:
    """An aware time, or seconds from the database's now.

    Args:
        option: named in the error.
        text: ISO 8601, `now`, or an offset such as `+10m`.

    Raises:
        InvalidRequest: it is none of them.
    """
    if text == "now":
        return 0.0
    if text.startswith("+") and (span_s := _parse_span(text[1:])) is not None:
        return float(span_s)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidRequest(f"{option}: ISO 8601, now, or an offset such as +10m (is {text!r})") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=settings.load().time_zone)


def _parse_span(text: str) -> int | None:
    match = re.fullmatch(r"([0-9]{1,6})([smhd])", text, re.ASCII)
    return int(match[1]) * _UNITS[match[2]] if match else None


def _pool() -> Pool:
    config = settings.load()
    config.require("database_url")
    return Pool(config.database_url, name="admin", max_size=1, timeouts=ADMIN_TIMEOUTS)


def _print_coupons(rows: list[Row], json_output: bool, *, single: bool = False) -> None:
    if json_output:
        _print_json(rows[0] if single else rows)
    else:
        _print_table(rows)


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, indent=2, default=_shower()))


def _print_table(rows: Iterable[dict[str, Any]]) -> None:
    shown = _shower()
    cells = [[str(shown(value)) for value in row.values()] for row in rows]
    if not cells:
        click.echo("no coupons")
        return
    head = list(next(iter(rows)).keys())
    widths = [max(_columns(line[column]) for line in [head, *cells]) for column in range(len(head))]
    for line in [head, *cells]:
        padded = (cell + " " * (width - _columns(cell)) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(padded).rstrip())


def _columns(text: str) -> int:
    """How wide a terminal shows it: Korean letters take two columns each."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _shower() -> Callable[[Any], Any]:
    """Shows a value as text or JSON can hold it, times in the time zone that is set."""
    zone = settings.load().time_zone

    def show_value(value: Any) -> Any:
        if isinstance(value, datetime):
            return value.astimezone(zone).isoformat(timespec="seconds")
        return "" if value is None else value

    return show_value
