"""The WSGI entry: `gunicorn wsgi:app` and `flask …`."""

import sys

from couponapp import cli, logs, settings
from couponapp.errors import ConfigurationError
from couponapp.web import create_app

try:
    _settings = settings.load()
    logs.configure(_settings.log_level)
    app = create_app(_settings)
except ConfigurationError as error:
    sys.exit(f"couponapp: {error}")
cli.register(app)
