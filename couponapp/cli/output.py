"""Shared by the commands: options, the operators' pool, one-line errors, tables and JSON."""

from __future__ import annotations

import functools
import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import click

from couponapp.config import settings
from couponapp.errors import CouponAppError, InvalidRequest
from couponapp.storage.pool import Pool, Timeouts

# A report over a million rows may take a minute; a server that does not answer is reported after 5 s.
TIMEOUTS = Timeouts(total_s=65.0, wait_s=5.0, lock_ms=5_000, statement_ms=60_000)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

ID = click.IntRange(1, 2**63 - 1)  # PostgreSQL's bigint


def operators_command(command: Callable[..., None]) -> Callable[..., None]:
    """Add the option `--json` to a command, and turn an error of `couponapp.errors` into one line and exit code 1."""

    @click.option("--json", "json_output", is_flag=True, help="Print JSON.")
    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except CouponAppError as error:
            raise click.ClickException(str(error)) from error

    return wrapped


def operator_pool() -> Pool:
    """Return a pool of one connection for one command.

    Raises:
        couponapp.errors.ConfigurationError: a setting is missing or bad.
    """
    config = settings.load()
    config.require("database_url")
    return Pool(config.database_url, name="admin", max_size=1, timeouts=TIMEOUTS)


def parse_moment(option: str, text: str) -> datetime | float:
    """Parse a time; returns an aware time, or seconds from the database's current time.

    Args:
        option: the option's name, for the error.
        text: ISO 8601, `now`, or an offset such as `+10m`.

    Raises:
        InvalidRequest: the text is none of them.
    """
    if text == "now":
        return 0.0
    if text.startswith("+") and (span_s := parse_span_s(text[1:])) is not None:
        return float(span_s)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidRequest(f"{option}: ISO 8601, now, or an offset such as +10m (is {text!r})") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=settings.load().time_zone)


def parse_span_s(text: str) -> int | None:
    """Return the seconds of a span such as `30s`, `10m`, `1h` or `7d`; None if the text is none."""
    match = re.fullmatch(r"([0-9]{1,6})([smhd])", text, re.ASCII)
    return int(match[1]) * _UNITS[match[2]] if match else None


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2, default=as_text()))


def print_text(text: str, members: dict[str, Any], json_output: bool) -> None:
    """Print text, or as JSON what it says."""
    if json_output:
        print_json(members)
    else:
        click.echo(text)


def print_rows(rows: Sequence[dict[str, Any]], json_output: bool, *, empty: str, single: bool = False) -> None:
    """Print rows as a table, or as JSON.

    Args:
        rows: all with the same keys.
        json_output: whether to print JSON.
        empty: the line to print instead of an empty table.
        single: whether to print the one row as a JSON object instead of a list.
    """
    if json_output:
        print_json(rows[0] if single else rows)
        return
    text = as_text()
    cells = [[str(text(value)) for value in row.values()] for row in rows]
    if not cells:
        click.echo(empty)
        return
    head = list(rows[0])
    widths = [max(_columns(line[column]) for line in [head, *cells]) for column in range(len(head))]
    for line in [head, *cells]:
        padded = (cell + " " * (width - _columns(cell)) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(padded).rstrip())


def _columns(text: str) -> int:
    """Return the width of a text in a terminal, where a Korean letter takes two columns."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def as_text() -> Callable[[Any], Any]:
    """Return a function that converts a value for printing, with times in the configured time zone."""
    zone = settings.load().time_zone

    def convert(value: Any) -> Any:
        if isinstance(value, datetime):
            return value.astimezone(zone).isoformat(timespec="seconds")
        return "" if value is None else value

    return convert
