"""The commands `flask breaker …`: hold the circuit breaker open or closed."""

from __future__ import annotations

import click
from flask.cli import AppGroup

from couponapp.cli.output import operator_pool, operators_command, print_rows
from couponapp.guards.circuit_breaker import Forced
from couponapp.operating import switches
from couponapp.storage.pool import Pool

breaker_commands = AppGroup("breaker", help="The circuit breaker around issuing, in all web processes.")


@breaker_commands.command("force")
@click.argument("forced", metavar="open|closed|auto", type=click.Choice([str(one) for one in Forced]))
@click.option("--note", default="", help="Who changes it and why.")
@operators_command
def force_breaker(forced: str, note: str, json_output: bool) -> None:
    """Refuse all attempts (open), let all through (closed), or follow the rules (auto).

    The setting takes effect in every web process within a second, and in those that start later.
    """
    pool = operator_pool()
    switches.set_value(pool, switches.ISSUE_BREAKER, forced, note=note)
    _print_breaker(pool, json_output)


@breaker_commands.command("show")
@operators_command
def show_breaker(json_output: bool) -> None:
    """Print the current setting. The state in each web process is in /metrics."""
    _print_breaker(operator_pool(), json_output)


def _print_breaker(pool: Pool, json_output: bool) -> None:
    switch = switches.show(pool, switches.ISSUE_BREAKER) or {"value": str(Forced.NO), "note": "", "changed_at": None}
    shown = {"forced": switch["value"], "changed_at": switch["changed_at"], "note": switch["note"]}
    print_rows([shown], json_output, empty="", single=True)
