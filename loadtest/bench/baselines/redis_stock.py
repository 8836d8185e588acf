"""As before the outage: the stock in Redis, taken by a Lua script, a pool of 50 connections, no time-outs.

Who is told ISSUED is in Redis and in a queue there; a scheduler writes the queue into PostgreSQL
in batches. A crash of Redis, or of the process between taking from the queue and
writing, loses issuances; a slow Redis holds all 50 connections and with them every request.
"""

from __future__ import annotations

import json
import secrets
import threading
import time

import psycopg
from flask import Flask, Response, g, jsonify
from redis import BlockingConnectionPool, Redis

from couponapp.config import settings
from loadtest.bench.baselines.caller import identify

MAX_CONNECTIONS = 50
# Often, so that what it costs is seen in the turn in which it was caused.
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

_settings = settings.load()
_redis = Redis(
    connection_pool=BlockingConnectionPool.from_url(
        _settings.redis_url, max_connections=MAX_CONNECTIONS, timeout=None, socket_timeout=None, decode_responses=True
    )
)
_issue = _redis.register_script(_ISSUE)
_scheduler = threading.Lock()
_loading = threading.Lock()

app = Flask("redis-stock")

app.before_request(identify)


@app.get("/livez")
def livez() -> Response:
    """The process is up."""
    return jsonify(success=True)


@app.post("/api/v1/coupons/<int:coupon_id>/issue")
def issue(coupon_id: int) -> tuple[Response, int]:
    """Take a piece in Redis; PostgreSQL learns of it later."""
    _start_scheduler()
    code = secrets.token_hex(10)
    keys = [f"baseline:stock:{coupon_id}", f"baseline:holders:{coupon_id}", _QUEUE]
    arguments = [g.user, json.dumps({"coupon": coupon_id, "user": g.user, "code": code})]
    outcome = _issue(keys, arguments)
    if outcome == "UNKNOWN":
        _load_stock(coupon_id, keys[0])
        outcome = _issue(keys, arguments)
    if outcome != "ISSUED":
        return jsonify(success=False, code=outcome, message="", data=None), 409
    return jsonify(success=True, code="ISSUED", message="", data={"code": code}), 201


def _load_stock(coupon_id: int, key: str) -> None:
    """The first who asks for a coupon puts its stock into Redis; the others of the process wait for it."""
    with _loading:
        if not _redis.exists(key):
            _redis.set(key, _remaining(coupon_id), nx=True)


def _remaining(coupon_id: int) -> int:
    with psycopg.connect(_settings.database_url, autocommit=True) as db:
        row = db.execute("SELECT remaining FROM coupon_stock WHERE coupon_id = %s", [coupon_id]).fetchone()
    return row[0] if row else 0


def _start_scheduler() -> None:
    """At first use, so after the fork; one per process."""
    if _scheduler.acquire(blocking=False):
        threading.Thread(target=_write_regularly, name="scheduler", daemon=True).start()


def _write_regularly() -> None:
    with psycopg.connect(_settings.database_url, autocommit=True) as db:
        while True:
            time.sleep(EVERY_S)
            while batch := _redis.lpop(_QUEUE, MAX_BATCH):
                db.execute(WRITE, [batch])
