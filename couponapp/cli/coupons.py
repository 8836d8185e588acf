"""The commands `flask coupons …`: create, change, check and export coupons."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from typing import Any

import click
from flask.cli import AppGroup

from couponapp.cli.output import (
    ID,
    as_text,
    operator_pool,
    operators_command,
    parse_moment,
    print_json,
    print_rows,
)
from couponapp.operating import verify
from couponapp.planning import coupons
from couponapp.storage.pool import Pool, Row

coupon_commands = AppGroup("coupons", help="Create and run coupon events.")
coupon_id = click.argument("coupon_id", metavar="ID", type=ID)


@coupon_commands.command()
@click.option("--name", required=True, help="The name that users see, 1 to 200 characters.")
@click.option("--total", required=True, type=int, help="The number of pieces.")
@click.option("--opens-at", default="now", show_default=True, help="ISO 8601, now, or an offset such as +10m.")
@click.option("--closes-at", required=True, help="ISO 8601, or an offset such as +2h.")
@click.option("--valid-days", default=30, show_default=True, help="For how many days an issued coupon is valid.")
@operators_command
def create(name: str, total: int, opens_at: str, closes_at: str, valid_days: int, json_output: bool) -> None:
    """Create a coupon. Times without a UTC offset are in COUPON_TIME_ZONE."""
    pool = operator_pool()
    new_id = coupons.create(
        pool,
        name=name,
        total=total,
        opens_at=parse_moment("opens-at", opens_at),
        closes_at=parse_moment("closes-at", closes_at),
        valid_days=valid_days,
    )
    _print_one(pool, new_id, json_output)


@coupon_commands.command("list")
@operators_command
def list_coupons(json_output: bool) -> None:
    """Print all coupons."""
    _print(coupons.list_all(operator_pool()), json_output)


@coupon_commands.command()
@coupon_id
@operators_command
def show(coupon_id: int, json_output: bool) -> None:
    """Print one coupon."""
    _print_one(operator_pool(), coupon_id, json_output)


def _add_change(name: str, change: Callable[[Pool, int], None]) -> None:
    @coupon_commands.command(name, help=(change.__doc__ or "").split("\n", 1)[0])
    @coupon_id
    @operators_command
    def command(coupon_id: int, json_output: bool) -> None:
        pool = operator_pool()
        change(pool, coupon_id)
        _print_one(pool, coupon_id, json_output)


_add_change("pause", coupons.pause)
_add_change("resume", coupons.resume)
_add_change("close", coupons.close)


@coupon_commands.command()
@coupon_id
@click.argument("pieces", metavar="N", type=int)
@operators_command
def restock(coupon_id: int, pieces: int, json_output: bool) -> None:
    """Add N pieces."""
    pool = operator_pool()
    coupons.restock(pool, coupon_id, pieces)
    _print_one(pool, coupon_id, json_output)


@coupon_commands.command("verify")
@click.argument("coupon_id", metavar="[ID]", type=ID, required=False)
@operators_command
def verify_coupons(coupon_id: int | None, json_output: bool) -> None:
    """Check the invariants. If any is broken, print the rows and exit with 1."""
    report = verify.verify(operator_pool(), coupon_id)
    if json_output:
        print_json({"clean": report.clean, "coupons": report.coupons, "violations": report.violations})
    else:
        _print(report.coupons, json_output)
        for violation in report.violations:
            click.echo(f"BROKEN  {violation}")
        click.echo("clean" if report.clean else f"{len(report.violations)} invariants are broken")
    if not report.clean:
        sys.exit(1)


@coupon_commands.command()
@coupon_id
@operators_command
def export(coupon_id: int, json_output: bool) -> None:
    """Print every issuance of a coupon as CSV, or as one JSON object per line."""
    columns = ["id", "coupon_id", "user_id", "code", "issued_at", "expires_at", "sent_at"]
    rows, text = coupons.export(operator_pool(), coupon_id), as_text()
    if json_output:
        for row in rows:
            click.echo(json.dumps(row, ensure_ascii=False, default=text))
        return
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_safe_cell(text(row[column])) for column in columns])


def _safe_cell(value: Any) -> Any:
    """Escape a value that a spreadsheet would take for a formula (OWASP, «CSV Injection»)."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _print(rows: list[Row], json_output: bool) -> None:
    print_rows(rows, json_output, empty="no coupons")


def _print_one(pool: Pool, coupon_id: int, json_output: bool) -> None:
    print_rows([coupons.show(pool, coupon_id)], json_output, empty="", single=True)
