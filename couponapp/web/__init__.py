"""HTTP: the API, the pages, identity and probes.

`app.py` makes the application around the services of one process; views get these by `services()` of
`current.py`. `api/` and `pages/` hold the views, `responses.py` the one table from codes to statuses
and messages, `error_handlers.py` the one way from an error to a response, `limits.py` Flask-Limiter.

A view reads its input, calls a service or a query, and returns a response. This package holds no SQL
and does not know RQ.
"""

from couponapp.web.app import create_app

__all__ = ["create_app"]
