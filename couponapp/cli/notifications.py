"""The commands `flask notifications …`: dead letters."""

from __future__ import annotations

import click
from flask.cli import AppGroup

from couponapp.cli.output import ID, operator_pool, operators_command, print_rows, print_text
from couponapp.config import settings
from couponapp.notifying import dead_letters

HOUR_S = 3_600.0

notification_commands = AppGroup("notifications", help="Inspect and handle what could not be delivered.")
letter_ids = click.argument("ids", metavar="[ID]...", type=ID, nargs=-1)
all_letters = click.option("--all", "everything", is_flag=True, help="All dead letters.")


@notification_commands.command()
@click.option(
    "--limit", default=1_000, show_default=True, type=click.IntRange(1, 1_000_000), help="Maximum number of rows."
)
@operators_command
def dead(limit: int, json_output: bool) -> None:
    """Print the dead letters, oldest first, each with its reason."""
    print_rows(dead_letters.oldest(operator_pool(), limit=limit), json_output, empty="no dead letters")


@notification_commands.command()
@letter_ids
@all_letters
@operators_command
def retry(ids: tuple[int, ...], everything: bool, json_output: bool) -> None:
    """Try dead letters again: those with these ids, or all, on the channels that failed."""
    chosen = _chosen(ids, everything)
    count = dead_letters.retry(operator_pool(), chosen, give_up_s=settings.load().notify_give_up_h * HOUR_S)
    print_text(f"{count} will be tried again", {"retried": count}, json_output)


@notification_commands.command()
@letter_ids
@all_letters
@operators_command
def drop(ids: tuple[int, ...], everything: bool, json_output: bool) -> None:
    """Drop dead letters for good: those with these ids, or all. Their holders are not notified."""
    count = dead_letters.drop(operator_pool(), _chosen(ids, everything))
    print_text(f"{count} given up", {"dropped": count}, json_output)


def _chosen(ids: tuple[int, ...], everything: bool) -> tuple[int, ...] | None:
    if everything == bool(ids):
        raise click.UsageError("Name ids, or --all.")
    return None if everything else ids
