"""The WSGI entry: `gunicorn wsgi:app` and `flask …`."""

import sys

from couponapp import cli, logs
from couponapp.config import settings
from couponapp.errors import ConfigurationError
from couponapp.web import create_app

try:
    _settings = settings.load()
    logs.configure(_settings.log_level)
    app = create_app(_settings)
except ConfigurationError as error:
    sys.stderr.write(f"couponapp: {error}\n")
    # gunicorn stops at this code («app failed to load»); at 1 it would start workers for ever.
    sys.exit(4)
cli.register(app)
