"""An application whose services start no thread: nothing reads switches or connects by itself."""

from __future__ import annotations

from flask import Flask

from couponapp.config.settings import Settings
from couponapp.services import Services, compose
from couponapp.web import create_app


def still_services(config: Settings) -> Services:
    """Compose services that count as started, so that the first request starts nothing."""
    services = compose(config)
    services._lifecycle.begin()
    return services


def still_app(config: Settings) -> Flask:
    """Return an application with such services. There is nothing to close until something connects."""
    return create_app(config, still_services(config))
