"""The commands `flask token` and `flask migrate`."""

from __future__ import annotations

import click

from couponapp.auth import tokens
from couponapp.cli.output import operators_command, parse_span_s, print_text
from couponapp.config import settings
from couponapp.errors import InvalidRequest, Unauthenticated
from couponapp.storage import migrations


@click.command()
@click.argument("user")
@click.option("--role", default="", help="The role claim, for example admin.")
@click.option("--ttl", default="1h", show_default=True, help="For how long it is valid: 30s, 10m, 1h, 7d.")
@operators_command
def token(user: str, role: str, ttl: str, json_output: bool) -> None:
    """Print a token for USER, signed with COUPON_JWT_SECRET."""
    ttl_s = parse_span_s(ttl)
    if ttl_s is None or ttl_s < 1:
        raise InvalidRequest("ttl: a span such as 30s, 10m, 1h or 7d")
    try:
        signed = tokens.sign(settings.load(), user, ttl_s=ttl_s, role=role)
    except Unauthenticated as error:
        raise InvalidRequest("USER: 1 to 128 printable characters") from error
    print_text(signed, {"token": signed, "user": user, "expiresInSeconds": ttl_s}, json_output)


@click.command()
@operators_command
def migrate(json_output: bool) -> None:
    """Apply all missing migrations to the database."""
    config = settings.load()
    config.require("database_url")
    applied = [f"{m.version:04}_{m.name}" for m in migrations.migrate(config.database_url)]
    text = "\n".join(f"applied {name}" for name in applied) or "up to date"
    print_text(text, {"applied": applied}, json_output)
