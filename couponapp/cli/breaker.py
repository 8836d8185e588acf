"""The commands `flask breaker …`: what an operator forces the circuit breaker to."""

from __future__ import annotations

import click
from flask.cli import AppGroup

from couponapp.cli.output import json_option, one_line_errors, operator_pool, print_rows
from couponapp.guards.circuit_breaker import Forced
from couponapp.operating import switches
from couponapp.storage.pool import Pool

breaker_commands = AppGroup("breaker", help="The circuit breaker around issuing, in all web processes.")


@breaker_commands.command("force")
@click.argument("forced", metavar="open|closed|auto", type=click.Choice([str(one) for one in Forced]))
@click.option("--note", default="", help="Who does it and why, for those who find it later.")
@json_option
@one_line_errors
def force_breaker(forced: str, note: str, json_output: bool) -> None:
    """Refuse all attempts, let all through, or leave it to its rules.

    Every web process follows within a second, and so does one that starts later.
    """
    pool = operator_pool()
    switches.turn(pool, switches.ISSUE_BREAKER, forced, note=note)
    _print_breaker(pool, json_output)


@breaker_commands.command("show")
@json_option
@one_line_errors
def show_breaker(json_output: bool) -> None:
    """Print what it is forced to. What each process does is in /metrics."""
    _print_breaker(operator_pool(), json_output)


def _print_breaker(pool: Pool, json_output: bool) -> None:
    turned = switches.show(pool, switches.ISSUE_BREAKER) or {"value": str(Forced.NO), "note": "", "changed_at": None}
    shown = {"forced": turned["value"], "changed_at": turned["changed_at"], "note": turned["note"]}
    print_rows([shown], json_output, empty="", single=True)
