"""Who the caller is: the API reads the Authorization header, the pages read a cookie."""

from __future__ import annotations

from wsgiref.types import WSGIEnvironment

from flask import request

from couponapp.errors import Unauthenticated
from couponapp.web.current import services

_SCHEME = "bearer "


def bearer_user(environ: WSGIEnvironment) -> str:
    """Return the user that a request's Authorization header speaks for.

    Raises:
        Unauthenticated: there is no bearer token, or it is not valid.
    """
    header: str = environ.get("HTTP_AUTHORIZATION", "")
    if not header.lower().startswith(_SCHEME):
        raise Unauthenticated()
    return services().verifier.verify(header[len(_SCHEME) :].strip())


def cookie_user() -> str | None:
    """Return the user that the pages' cookie of this request speaks for, or None."""
    token = request.cookies.get(services().settings.cookie_name)
    if not token:
        return None
    try:
        return services().verifier.verify(token)
    except Unauthenticated:
        return None
