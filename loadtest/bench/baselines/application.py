"""What every baseline with a database needs: a Flask application that knows the user of each request."""

from __future__ import annotations

import jwt
from flask import Flask, Response, g, jsonify, request

from couponapp.config import settings

config = settings.load()


def baseline(name: str) -> Flask:
    """Return an application with `/livez`, which verifies each token and keeps its `sub` as `g.user`.

    Tokens are verified with every request, as the service does for a token that it has not seen before.
    """
    app = Flask(name)
    app.before_request(_identify)
    app.add_url_rule("/livez", view_func=livez)
    return app


def livez() -> Response:
    """Report that the process is up."""
    return jsonify(success=True)


def _identify() -> None:
    header = request.headers.get("Authorization", "")
    if header:
        token = header.removeprefix("Bearer ")
        g.user = jwt.decode(token, config.jwt_secret, algorithms=["HS256"], audience=config.jwt_audience)["sub"]
