"""The services of the current application, as views get them."""

from __future__ import annotations

from typing import cast

from flask import current_app

from couponapp.services import Services

EXTENSION = "couponapp"


def services() -> Services:
    """Return the services of the application that serves the current request."""
    return cast(Services, current_app.extensions[EXTENSION])
