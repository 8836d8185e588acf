"""As before the outage: the stock in Redis, taken by a Lua script, a pool of 50 connections, no time-outs.

An issuance is in Redis and in a queue there; a scheduler writes the queue into PostgreSQL in batches. A
crash of Redis, or of the process between reading the queue and writing, loses issuances; a slow Redis
blocks all 50 connections and with them every request.
"""

from __future__ import annotations

import json
import secrets
import threading
import time

import psycopg
from flask import Response, g, jsonify
from redis import BlockingConnectionPool, Redis

from loadtest.bench.baselines.application import baseline, config

MAX_CONNECTIONS = 50
# Often, so that its cost counts in the turn that caused it.
EVERY_S = 0.2
MAX_BATCH = 1_000
_QUEUE = "baseline:issued"

# KEYS: stock, holders, queue. ARGV: user, what the scheduler is to write.
_ISSUE = """
local stock = redis.call('GET', KEYS[1])
if not stock then return 'UNKNOWN' end
if redis.call('SISMEMBER', KEYS[2], ARGV[1]) == 1 then return 'ALREADY_ISSUED' end
if tonumber(stock) <= 0 then return 'SOLD_OUT' end
redis.call('DECR', KEYS[1])
redis.call('SADD', KEYS[2], ARGV[1])
redis.call('RPUSH', KEYS[3], ARGV[2])
return 'ISSUED'
"""

WRITE = """
WITH issued AS (
    INSERT INTO issuances (coupon_id, user_id, code, expires_at)
    SELECT (row->>'coupon')::bigint, row->>'user', row->>'code', now() + interval '30 days'
    FROM unnest(%s::jsonb[]) AS row
    RETURNING id
)
INSERT INTO outbox (kind, issuance_id) SELECT 'issuance.issued', id FROM issued
"""

_redis = Redis(
    connection_pool=BlockingConnectionPool.from_url(
        config.redis_url, max_connections=MAX_CONNECTIONS, timeout=None, socket_timeout=None, decode_responses=True
    )
)
_issue = _redis.register_script(_ISSUE)
_scheduler = threading.Lock()
_loading = threading.Lock()

app = baseline("redis-stock")


@app.post("/api/v1/coupons/<int:coupon_id>/issue")
def issue(coupon_id: int) -> tuple[Response, int]:
    """Take a piece in Redis; it is written into PostgreSQL later."""
    if _scheduler.acquire(blocking=False):  # at the first request, so after the fork; one per process
        threading.Thread(target=_write_regularly, name="scheduler", daemon=True).start()
    code = secrets.token_hex(10)
    keys = [f"baseline:stock:{coupon_id}", f"baseline:holders:{coupon_id}", _QUEUE]
    arguments = [g.user, json.dumps({"coupon": coupon_id, "user": g.user, "code": code})]
    result = _issue(keys, arguments)
    if result == "UNKNOWN":
        _load_stock(coupon_id, keys[0])
        result = _issue(keys, arguments)
    if result != "ISSUED":
        return jsonify(success=False, code=result, message="", data=None), 409
    return jsonify(success=True, code="ISSUED", message="", data={"code": code}), 201


def _load_stock(coupon_id: int, key: str) -> None:
    """Put a coupon's stock into Redis at its first request; the other requests of the process wait for it."""
    with _loading:
        if not _redis.exists(key):
            with psycopg.connect(config.database_url, autocommit=True) as db:
                sql = "SELECT remaining FROM coupon_stock WHERE coupon_id = %s"
                row = db.execute(sql, [coupon_id]).fetchone()
            _redis.set(key, row[0] if row else 0, nx=True)


def _write_regularly() -> None:
    with psycopg.connect(config.database_url, autocommit=True) as db:
        while True:
            time.sleep(EVERY_S)
            while batch := _redis.lpop(_QUEUE, MAX_BATCH):
                db.execute(WRITE, [batch])
