"""Create, change, list and export coupons. Each change is one statement; its row count is the verdict.

Every stock row has `lane = 0`; a CHECK constraint allows no other value. The column exists so that the
stock row of one coupon, the bottleneck of its event (docs/decisions/0001), can later be split into several
rows without a new primary key.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from couponapp.errors import ConstraintViolated, CouponNotFound, InvalidRequest, RuleViolated
from couponapp.storage.pool import Pool, Row

MAX_TOTAL = 2**31 - 1  # PostgreSQL's integer
MAX_NAME_LENGTH = 200
MAX_VALID_DAYS = 3650
# PostgreSQL has years that Python has not, and a time zone can move a time out of Python's range: a
# single coupon that closes on 9999-12-31 would make every list of coupons fail.
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
LATEST = datetime(9000, 1, 1, tzinfo=UTC)

# An offset is added to the database's clock; an absolute time is used as it is.
CREATE = """
WITH created AS (
    INSERT INTO coupons (name, total, opens_at, closes_at, valid_days)
    VALUES (
        %(name)s, %(total)s,
        coalesce(%(opens_at)s::timestamptz, now() + make_interval(secs => %(opens_in_s)s)),
        coalesce(%(closes_at)s::timestamptz, now() + make_interval(secs => %(closes_in_s)s)),
        %(valid_days)s
    )
    RETURNING *
), stocked AS (
    INSERT INTO coupon_stock (coupon_id, lane, remaining) SELECT id, 0, total FROM created
)
SELECT id FROM created
"""

Moment = datetime | float


def create(pool: Pool, *, name: str, total: int, opens_at: Moment, closes_at: Moment, valid_days: int = 30) -> int:
    """Create a coupon.

    Args:
        pool: where to write.
        name: 1 to 200 printable characters.
        total: number of pieces, 0 to 2,147,483,647.
        opens_at: an aware time in the years 2000 to 8999, or seconds from the database's current time.
        closes_at: as `opens_at`, and later.
        valid_days: for how many days an issued coupon is valid, 1 to 3650.

    Returns:
        The new coupon's id.

    Raises:
        InvalidRequest: a value is wrong; the message names it.
    """
    if not name.strip() or len(name) > MAX_NAME_LENGTH or not name.isprintable():
        raise InvalidRequest(f"name: 1 to {MAX_NAME_LENGTH} printable characters")
    if not 0 <= total <= MAX_TOTAL:
        raise InvalidRequest(f"total: 0 to {MAX_TOTAL}")
    if not 1 <= valid_days <= MAX_VALID_DAYS:
        raise InvalidRequest(f"valid-days: 1 to {MAX_VALID_DAYS}")
    params = {"name": name, "total": total, "valid_days": valid_days}
    for key, moment in (("opens", opens_at), ("closes", closes_at)):
        if isinstance(moment, datetime) and not EARLIEST <= moment < LATEST:
            raise InvalidRequest(f"{key}-at: a time in the years {EARLIEST.year} to {LATEST.year - 1}")
        params[f"{key}_at"] = moment if isinstance(moment, datetime) else None
        params[f"{key}_in_s"] = None if isinstance(moment, datetime) else moment
    try:
        row = pool.fetch_one(CREATE, params)
    except ConstraintViolated as refusal:
        if refusal.constraint != "coupons_window":
            raise
        raise InvalidRequest("closes-at: must be later than opens-at") from refusal
    assert row is not None
    return int(row["id"])


LIST = """
SELECT c.id, c.name, c.total, s.remaining, c.total - s.remaining AS issued,
       c.opens_at, c.closes_at, c.valid_days, c.state,
       CASE
           WHEN c.state = 'closed' OR now() >= c.closes_at THEN 'CLOSED'
           WHEN now() < c.opens_at THEN 'SCHEDULED'
           WHEN c.state = 'paused' THEN 'PAUSED'
           WHEN s.remaining = 0 THEN 'SOLD_OUT'
           ELSE 'OPEN'
       END AS status
FROM coupons c JOIN coupon_stock s ON s.coupon_id = c.id AND s.lane = 0
WHERE %(coupon_id)s::bigint IS NULL OR c.id = %(coupon_id)s
ORDER BY c.id
"""


def list_all(pool: Pool) -> list[Row]:
    """Return all coupons in the order of their ids."""
    return pool.fetch_all(LIST, {"coupon_id": None})


LIST_OPEN = """
SELECT c.id, c.name FROM coupons c JOIN coupon_stock s ON s.coupon_id = c.id AND s.lane = 0
WHERE c.state = 'open' AND now() BETWEEN c.opens_at AND c.closes_at AND s.remaining > 0
ORDER BY c.id
"""


def list_open(pool: Pool) -> list[Row]:
    """Return `id` and `name` of the coupons that can be issued right now, in the order of their ids."""
    return pool.fetch_all(LIST_OPEN)


def show(pool: Pool, coupon_id: int) -> Row:
    """Return one coupon.

    Raises:
        CouponNotFound: it does not exist.
    """
    row = pool.fetch_one(LIST, {"coupon_id": coupon_id})
    if row is None:
        raise CouponNotFound(f"there is no coupon {coupon_id}")
    return row


PAUSE = "UPDATE coupons SET state = 'paused' WHERE id = %(coupon_id)s AND state IN ('open', 'paused')"


def pause(pool: Pool, coupon_id: int) -> None:
    """Stop issuing until `resume`; takes effect in every process within a second.

    Raises:
        CouponNotFound: it does not exist.
        RuleViolated: it is closed.
    """
    if not pool.execute(PAUSE, {"coupon_id": coupon_id}):
        _refuse(pool, coupon_id)


RESUME = "UPDATE coupons SET state = 'open' WHERE id = %(coupon_id)s AND state IN ('open', 'paused')"


def resume(pool: Pool, coupon_id: int) -> None:
    """Continue issuing after a pause.

    Raises:
        CouponNotFound: it does not exist.
        RuleViolated: it is closed.
    """
    if not pool.execute(RESUME, {"coupon_id": coupon_id}):
        _refuse(pool, coupon_id)


CLOSE = "UPDATE coupons SET state = 'closed' WHERE id = %(coupon_id)s"


def close(pool: Pool, coupon_id: int) -> None:
    """Stop issuing for good. Issued coupons stay valid.

    Raises:
        CouponNotFound: it does not exist.
    """
    if not pool.execute(CLOSE, {"coupon_id": coupon_id}):
        _refuse(pool, coupon_id)


# Both rows or neither: a closed coupon's stock does not change. A coupon that is sold out gets its new
# pieces 0.9 s later: by then every process has read the restock, so that none answers SOLD_OUT from its
# memory to a user who has just got one.
RESTOCK = """
WITH stocked AS (
    UPDATE coupon_stock AS s SET remaining = s.remaining + %(pieces)s
    FROM coupons c
    WHERE s.coupon_id = %(coupon_id)s AND s.lane = 0 AND c.id = s.coupon_id
      AND c.state <> 'closed' AND c.total <= %(max_total)s - %(pieces)s
    RETURNING s.coupon_id, s.remaining - %(pieces)s AS before
)
UPDATE coupons SET
    total = total + %(pieces)s,
    stocked_from = CASE WHEN before = 0 THEN clock_timestamp() + interval '0.9 seconds' ELSE stocked_from END
FROM stocked WHERE id = stocked.coupon_id
"""


def restock(pool: Pool, coupon_id: int, pieces: int) -> None:
    """Add pieces. They are available within a second.

    Args:
        pool: where to write.
        coupon_id: the coupon.
        pieces: how many to add, at least 1.

    Raises:
        InvalidRequest: fewer than 1, or the total would exceed 2,147,483,647.
        CouponNotFound: it does not exist.
        RuleViolated: it is closed.
    """
    if not 1 <= pieces <= MAX_TOTAL:
        raise InvalidRequest(f"pieces: 1 to {MAX_TOTAL}")
    params = {"coupon_id": coupon_id, "pieces": pieces, "max_total": MAX_TOTAL}
    if not pool.execute(RESTOCK, params):
        coupon = show(pool, coupon_id)
        if coupon["state"] != "closed":
            raise InvalidRequest(f"pieces: the total is {coupon['total']} and cannot exceed {MAX_TOTAL}")
        _refuse(pool, coupon_id)


def _refuse(pool: Pool, coupon_id: int) -> None:
    coupon = show(pool, coupon_id)
    raise RuleViolated(f"coupon {coupon_id} is {coupon['state']}")


EXPORT = """
SELECT i.id, i.coupon_id, i.user_id, i.code, i.issued_at, i.expires_at, o.sent_at
FROM issuances i LEFT JOIN outbox_and_archive o ON o.issuance_id = i.id AND o.kind = 'issuance.issued'
WHERE i.coupon_id = %(coupon_id)s AND i.id > %(after_id)s
ORDER BY i.id
LIMIT %(limit)s
"""
EXPORT_BATCH = 5_000


def export(pool: Pool, coupon_id: int) -> Iterator[Row]:
    """Return every issuance of a coupon in the order of their ids, read in batches.

    Raises:
        CouponNotFound: it does not exist.
    """
    show(pool, coupon_id)  # now, not at the first row: the caller prints a header before it
    return _batches(pool, coupon_id)


def _batches(pool: Pool, coupon_id: int) -> Iterator[Row]:
    after_id = 0
    while rows := pool.fetch_all(EXPORT, {"coupon_id": coupon_id, "after_id": after_id, "limit": EXPORT_BATCH}):
        yield from rows
        after_id = rows[-1]["id"]
