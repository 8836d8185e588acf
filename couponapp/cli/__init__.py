"""The commands: `flask coupons …`, `flask breaker …`, `flask notifications …`, `flask token …`, `flask migrate`.

One file per group. What they share (a pool for operators, printing, one-line errors) is in `output.py`.
A command does what a package below offers and prints it; it holds no rule and no SQL of its own.
An error of ours becomes one line; the exit codes are those of the contract.
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
