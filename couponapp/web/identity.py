"""Who is it? The API asks the Authorization header, the pages ask a cookie."""

from __future__ import annotations

from wsgiref.types import WSGIEnvironment

from flask import Request

from couponapp.auth.tokens import CachingVerifier
from couponapp.errors import Unauthenticated

_SCHEME = "bearer "


class Identity:
    """Finds the caller of a request."""

    def __init__(self, verifier: CachingVerifier, cookie_name: str) -> None:
        self._verifier = verifier
        self._cookie_name = cookie_name

    def of_bearer(self, environ: WSGIEnvironment) -> str:
        """The user that a request's Authorization header speaks for.

        Raises:
            Unauthenticated: there is none, or it is not valid.
        """
        header: str = environ.get("HTTP_AUTHORIZATION", "")
        if not header.lower().startswith(_SCHEME):
            raise Unauthenticated()
        return self._verifier.verify(header[len(_SCHEME) :].strip())

    def of_cookie(self, request: Request) -> str | None:
        """The user that the pages' cookie speaks for, or None."""
        token = request.cookies.get(self._cookie_name)
        if not token:
            return None
        try:
            return self._verifier.verify(token)
        except Unauthenticated:
            return None
