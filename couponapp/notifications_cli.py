"""The commands `flask notifications …`: dead letters."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import click
from flask.cli import AppGroup

from couponapp import settings
from couponapp.errors import CouponAppError
from couponapp.notifying import dead_letters
from couponapp.settings import Settings
from couponapp.storage.pool import Pool, Timeouts

TIMEOUTS = Timeouts(total_s=65.0, wait_s=5.0, lock_ms=5_000, statement_ms=60_000)
HOUR_S = 3_600.0

notification_commands = AppGroup("notifications", help="Look after what could not be delivered.")
as_json = click.option("--json", "json_output", is_flag=True, help="Print JSON.")


@notification_commands.command()
@click.option("--limit", default=1_000, show_default=True, type=click.IntRange(1, 1_000_000), help="The most to show.")
@as_json
def dead(limit: int, json_output: bool) -> None:
    """The dead letters, oldest first, each with its reason."""
    _in_one_line(lambda: _show_dead(limit, json_output))


@notification_commands.command()
@click.argument("ids", metavar="[ID]...", type=click.IntRange(1, 2**63 - 1), nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All dead letters.")
@as_json
def retry(ids: tuple[int, ...], everything: bool, json_output: bool) -> None:
    """Try dead letters anew: those with these ids, or all, on the channels that failed."""
    chosen = _chosen(ids, everything)
    _in_one_line(lambda: _retry(chosen, json_output))


@notification_commands.command()
@click.argument("ids", metavar="[ID]...", type=click.IntRange(1, 2**63 - 1), nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All dead letters.")
@as_json
def drop(ids: tuple[int, ...], everything: bool, json_output: bool) -> None:
    """Give dead letters up for good: those with these ids, or all. Nobody is told of them any more."""
    chosen = _chosen(ids, everything)
    _in_one_line(lambda: _drop(chosen, json_output))


def _chosen(ids: tuple[int, ...], everything: bool) -> tuple[int, ...] | None:
    if everything == bool(ids):
        raise click.UsageError("Name ids, or --all.")
    return None if everything else ids


def _show_dead(limit: int, json_output: bool) -> None:
    config, pool = _service()
    rows = dead_letters.oldest(pool, limit=limit)
    shown = [{name: _shown(value, config) for name, value in row.items()} for row in rows]
    if json_output:
        click.echo(json.dumps(shown, ensure_ascii=False, indent=2))
        return
    for row in shown:
        click.echo(
            f"{row['id']}  {row['channel']}  {row['kind']}  coupon {row['coupon_id']}  issuance {row['issuance_id']}"
            f"  {row['user_id']}  {row['dead_at']}  {row['tries']} tries  {row['reason']}"
        )
    if not shown:
        click.echo("no dead letters")


def _retry(ids: tuple[int, ...] | None, json_output: bool) -> None:
    config, pool = _service()
    count = dead_letters.retry(pool, ids, give_up_s=config.notify_give_up_h * HOUR_S)
    click.echo(json.dumps({"retried": count}) if json_output else f"{count} will be tried again")


def _drop(ids: tuple[int, ...] | None, json_output: bool) -> None:
    _, pool = _service()
    count = dead_letters.drop(pool, ids)
    click.echo(json.dumps({"dropped": count}) if json_output else f"{count} given up")


def _in_one_line(work: Callable[[], None]) -> None:
    """Turn an error of ours into one line and exit code 1."""
    try:
        work()
    except CouponAppError as error:
        raise click.ClickException(str(error)) from error


def _service() -> tuple[Settings, Pool]:
    config = settings.load()
    config.require("database_url")
    return config, Pool(config.database_url, name="admin", max_size=1, timeouts=TIMEOUTS)


def _shown(value: Any, config: Settings) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(config.time_zone).isoformat(timespec="seconds")
    return value
