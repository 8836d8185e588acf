"""HTTP: the API, the pages, identity, probes."""

from couponapp.web.app import create_app

__all__ = ["create_app"]
