"""The issue statement: stock, issuance and outbox row, all or nothing, in one round trip."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import LiteralString

from couponapp.errors import ConnectionLost, ConstraintViolated, Unavailable
from couponapp.guards.deadline import Deadline
from couponapp.issuing.codes import new_code
from couponapp.issuing.issuances import Issuance
from couponapp.storage.pool import Pool, Row


class Outcome(StrEnum):
    """How one attempt to issue ended."""

    ISSUED = "ISSUED"
    REPLAYED = "REPLAYED"
    ALREADY_ISSUED = "ALREADY_ISSUED"
    SOLD_OUT = "SOLD_OUT"
    NOT_OPEN = "NOT_OPEN"
    CLOSED = "CLOSED"
    PAUSED = "PAUSED"
    COUPON_NOT_FOUND = "COUPON_NOT_FOUND"
    IDEMPOTENCY_KEY_REUSED = "IDEMPOTENCY_KEY_REUSED"


@dataclass(frozen=True)
class Attempt:
    """The verdict on one attempt.

    Attributes:
        outcome: how it ended.
        issuance: what the user holds now, where the outcome says that they hold one.
        opens_at: when the coupon opens, where it has not.
        retry_after_s: seconds until then, by the database's clock.
    """

    outcome: Outcome
    issuance: Issuance | None = None
    opens_at: datetime | None = None
    retry_after_s: float = 0.0


# What the snapshot shows. An earlier line wins: a retry finds its own issuance and a holder is
# told so, whatever has become of the coupon since. That a key was used for another coupon is not
# told of a sold-out one, because the sold-out memory does not know either.
_SEEN = """
    SELECT c.id AS coupon_id, c.name AS coupon_name, c.valid_days, c.opens_at, now() AS now,
           held.id, held.user_id, held.code, held.issued_at, held.expires_at,
           CASE
               WHEN keyed.coupon_id = c.id THEN 'REPLAYED'
               WHEN held.id IS NOT NULL THEN 'ALREADY_ISSUED'
               WHEN keyed.id IS NOT NULL AND s.remaining > 0 THEN 'IDEMPOTENCY_KEY_REUSED'
               WHEN c.state = 'closed' THEN 'CLOSED'
               WHEN now() < c.opens_at THEN 'NOT_OPEN'
               WHEN now() >= c.closes_at THEN 'CLOSED'
               WHEN c.state = 'paused' THEN 'PAUSED'
               WHEN s.remaining = 0 OR now() < c.stocked_from THEN 'SOLD_OUT'
               ELSE 'ISSUED'
           END AS verdict
    FROM coupons c
    JOIN coupon_stock s ON s.coupon_id = c.id AND s.lane = 0
    LEFT JOIN issuances held ON held.coupon_id = c.id AND held.user_id = %(user_id)s
    LEFT JOIN issuances keyed ON keyed.user_id = %(user_id)s AND keyed.idempotency_key = %(key)s
    WHERE c.id = %(coupon_id)s
"""

LOOK = _SEEN

# The order matters. The issuance comes first: its unique index makes a user's twin requests wait
# for each other before either touches the stock, and the hot stock row is locked last and
# shortest. The conditional UPDATE then takes the piece. Where it finds none left, because the
# last one went while this statement waited for the row, the outbox row would name no issuance;
# its check refuses that and with it the whole statement, so the issuance goes too.
# A refusal that the snapshot shows inserts nothing, so it writes nothing and takes no
# transaction id.
ISSUE = f"""
WITH seen AS MATERIALIZED ({_SEEN}),
issued AS (
    INSERT INTO issuances (coupon_id, user_id, code, idempotency_key, expires_at)
    SELECT coupon_id, %(user_id)s, %(code)s, %(key)s, now() + make_interval(days => valid_days)
    FROM seen WHERE verdict = 'ISSUED'
    ON CONFLICT DO NOTHING
    RETURNING id, coupon_id, user_id, code, issued_at, expires_at
),
reserved AS (
    UPDATE coupon_stock AS s SET remaining = s.remaining - 1
    FROM issued
    WHERE s.coupon_id = issued.coupon_id AND s.lane = 0 AND s.remaining > 0
    RETURNING s.coupon_id
),
told AS (
    INSERT INTO outbox (kind, issuance_id)
    SELECT 'issuance.issued', CASE WHEN reserved.coupon_id IS NOT NULL THEN issued.id END
    FROM issued LEFT JOIN reserved ON reserved.coupon_id = issued.coupon_id
)
SELECT seen.coupon_id, seen.coupon_name, seen.opens_at, seen.now,
       coalesce(issued.id, seen.id) AS id,
       coalesce(issued.user_id, seen.user_id) AS user_id,
       coalesce(issued.code, seen.code) AS code,
       coalesce(issued.issued_at, seen.issued_at) AS issued_at,
       coalesce(issued.expires_at, seen.expires_at) AS expires_at,
       CASE WHEN seen.verdict = 'ISSUED' AND issued.id IS NULL THEN 'LOST_TO_TWIN' ELSE seen.verdict END AS verdict
FROM seen LEFT JOIN issued ON true
"""

_NO_PIECE_LEFT = "outbox_needs_a_reserved_piece"
_LOST_TO_TWIN = "LOST_TO_TWIN"


def issue(
    pool: Pool,
    coupon_id: int,
    user_id: str,
    key: str | None = None,
    *,
    deadline: Deadline | None = None,
    statement: LiteralString = ISSUE,
) -> Attempt:
    """Try to issue one coupon to one user. «Issued» means committed.

    One round trip; two where a twin request of the same user, or one with the same key, won.
    After a lost connection the attempt is made once more with the same code, by which it
    recognises an issuance that was committed although the answer was lost.

    Args:
        pool: autocommit connections at READ COMMITTED, with timeouts.
        coupon_id: 1 to 2^63 - 1.
        user_id: 1 to 128 printable characters.
        key: the `Idempotency-Key`, 1 to 255 characters, where the caller has one.
        deadline: bounds all round trips together; each has the pool's own bound when left out.
        statement: tests put wrong statements here, to see that they are caught.

    Raises:
        couponapp.errors.Unavailable: and its children; after a `ConnectionLost` or
            `StatementTimedOut` the outcome is unknown, and the same key tells it later.
    """
    params = {"coupon_id": coupon_id, "user_id": user_id, "key": key, "code": new_code()}

    def timeout_s() -> float | None:
        return deadline.remaining_s() if deadline is not None else None

    try:
        return _attempt(pool, statement, params, timeout_s)
    except ConnectionLost:
        attempt = _attempt(pool, statement, params, timeout_s)
        if attempt.issuance is not None and attempt.issuance.code == params["code"]:
            return Attempt(Outcome.ISSUED, attempt.issuance)
        return attempt


def _attempt(
    pool: Pool, statement: LiteralString, params: Mapping[str, object], timeout_s: Callable[[], float | None]
) -> Attempt:
    try:
        row = pool.fetch_one(statement, params, timeout_s=timeout_s())
    except ConstraintViolated as refusal:
        if refusal.constraint != _NO_PIECE_LEFT:
            raise
        return Attempt(Outcome.SOLD_OUT)
    if row is not None and row["verdict"] == _LOST_TO_TWIN:
        row = pool.fetch_one(LOOK, params, timeout_s=timeout_s())
        if row is not None and row["verdict"] == Outcome.ISSUED:
            # No twin and no such key: the new code exists already, at a chance of 2^-99.
            raise Unavailable()
    return _read(row)


def _read(row: Row | None) -> Attempt:
    if row is None:
        return Attempt(Outcome.COUPON_NOT_FOUND)
    outcome = Outcome(row["verdict"])
    if outcome is Outcome.NOT_OPEN:
        return Attempt(outcome, None, row["opens_at"], (row["opens_at"] - row["now"]).total_seconds())
    if outcome in (Outcome.ISSUED, Outcome.REPLAYED, Outcome.ALREADY_ISSUED):
        return Attempt(outcome, Issuance.from_row(row))
    return Attempt(outcome)
