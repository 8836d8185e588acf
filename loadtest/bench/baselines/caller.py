"""Who calls a baseline: verified with every request, as ours does at the first."""

from __future__ import annotations

import jwt
from flask import g, request

from couponapp.config import settings

_settings = settings.load()


def identify() -> None:
    """Keep the bearer token's `sub` as `g.user`; to be called before each request."""
    header = request.headers.get("Authorization", "")
    if header:
        token = header.removeprefix("Bearer ")
        g.user = jwt.decode(token, _settings.jwt_secret, algorithms=["HS256"], audience=_settings.jwt_audience)["sub"]
