"""The usual way: three stock Flask-Limiter decorators, SELECT … FOR UPDATE, INSERT, UPDATE, COMMIT."""

from __future__ import annotations

import secrets
from functools import cache

from flask import Response, g, jsonify
from flask_limiter import Limiter
from psycopg_pool import ConnectionPool

from loadtest.bench.baselines.application import baseline, config, livez

app = baseline("for-update")
limiter = Limiter(key_func=lambda: "all", app=app, storage_uri=config.redis_url)
limiter.exempt(livez)


@app.post("/api/v1/coupons/<int:coupon_id>/issue")
@limiter.limit("1000000/minute", key_func=lambda: str(g.user))
@limiter.limit("1000000/minute", key_func=lambda: "global")
@limiter.limit("1000000/second", key_func=lambda: "process")
def issue(coupon_id: int) -> tuple[Response, int]:
    """Lock the stock, read, insert, decrement."""
    with pool().connection() as db:
        row = db.execute("SELECT remaining FROM coupon_stock WHERE coupon_id = %s FOR UPDATE", [coupon_id]).fetchone()
        if row is None or row[0] == 0:
            return jsonify(success=False, code="SOLD_OUT", message="", data=None), 409
        held = "SELECT id FROM issuances WHERE coupon_id = %s AND user_id = %s"
        if db.execute(held, [coupon_id, g.user]).fetchone():
            return jsonify(success=False, code="ALREADY_ISSUED", message="", data=None), 409
        code = secrets.token_hex(10)
        new = db.execute(
            "INSERT INTO issuances (coupon_id, user_id, code, expires_at)"
            " VALUES (%s, %s, %s, now() + interval '30 days') RETURNING id",
            [coupon_id, g.user, code],
        ).fetchone()
        assert new is not None
        db.execute("UPDATE coupon_stock SET remaining = remaining - 1 WHERE coupon_id = %s", [coupon_id])
        db.execute("INSERT INTO outbox (kind, issuance_id) VALUES ('issuance.issued', %s)", [new[0]])
    return jsonify(success=True, code="ISSUED", message="", data={"issuanceId": new[0], "code": code}), 201


@cache
def pool() -> ConnectionPool:
    """Return the pool, opened at first use and so after the fork; as large as the service's."""
    return ConnectionPool(config.database_url, min_size=4, max_size=4, timeout=30, open=True)
