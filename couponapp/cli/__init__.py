"""The commands: `flask coupons …`, `flask breaker …`, `flask notifications …`, `flask token …`, `flask migrate`.

One file per group; `output.py` has what they share: the operators' pool, printing, one-line errors.
A command calls a function of a package below and prints the result; it has no rules and no SQL. Every
command takes `--json`. An error of `couponapp.errors` becomes one line on standard error and exit code 1.
"""

from __future__ import annotations

from flask import Flask

from couponapp.cli.breaker import breaker_commands
from couponapp.cli.coupons import coupon_commands
from couponapp.cli.notifications import notification_commands
from couponapp.cli.setup import migrate, token


def register(app: Flask) -> None:
    """Add the commands to `flask`."""
    for command in (coupon_commands, breaker_commands, notification_commands, token, migrate):
        app.cli.add_command(command)
