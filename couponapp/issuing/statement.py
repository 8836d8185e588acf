"""The issue statement: stock, issuances and outbox rows, all or nothing, in one round trip.

One statement serves a batch: the users whose requests for one coupon arrived in one process while all
connections were busy. The hot stock row is then locked once for all of them, and they share one
commit: what otherwise bounds an event is that each waits for the commit of the one before
(docs/decisions/0020).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import LiteralString

from couponapp.errors import ConnectionLost, ConstraintViolated, DeadlineExceeded, Unavailable
from couponapp.guards.deadline import Deadline
from couponapp.guards.hits import RateLimitStatus
from couponapp.issuing.codes import new_code
from couponapp.issuing.issuances import Issuance
from couponapp.storage.pool import Pool, Row


class Outcome(StrEnum):
    """How one request to issue ended."""

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
class IssueRequest:
    """One user requests one coupon.

    Attributes:
        user_id: 1 to 128 printable characters.
        key: the `Idempotency-Key`, 1 to 255 characters, where the caller sent one.
    """

    user_id: str
    key: str | None = None


@dataclass(frozen=True)
class IssueResult:
    """The result of one request.

    Attributes:
        outcome: how it ended.
        issuance: what the user holds now, where the outcome says that they hold one.
        opens_at: when the coupon opens, where it has not.
        retry_after_s: seconds until then, by the database's clock.
        rate_limit: how the user stands with the rate limit, where the request counted.
    """

    outcome: Outcome
    issuance: Issuance | None = None
    opens_at: datetime | None = None
    retry_after_s: float = 0.0
    rate_limit: RateLimitStatus | None = None


# What the snapshot shows for each request. An earlier line wins: a retry finds its own issuance, and a
# holder receives ALREADY_ISSUED, whatever has become of the coupon since. That a key was used for
# another coupon is not reported for a sold-out one, because the sold-out list does not know either.
# The look-ups are lateral so that each is one probe of an index, whatever the statistics say of a
# table that was empty a minute ago. Of the requests that could get a piece, only as many as there are
# pieces are let through, in the order of their arrival.
_EVALUATED = """
    SELECT *, row_number() OVER (PARTITION BY verdict ORDER BY n) AS place
    FROM (
        SELECT request.n, request.user_id AS requester, request.key, request.code AS new_code,
               c.id AS coupon_id, c.name AS coupon_name, c.valid_days, c.opens_at, now() AS now, s.remaining,
               held.id, held.user_id, held.code, held.issued_at, held.expires_at,
               CASE
                   WHEN keyed.coupon_id = c.id THEN 'REPLAYED'
                   WHEN held.id IS NOT NULL THEN 'ALREADY_ISSUED'
                   WHEN keyed.coupon_id IS NOT NULL AND s.remaining > 0 THEN 'IDEMPOTENCY_KEY_REUSED'
                   WHEN c.state = 'closed' THEN 'CLOSED'
                   WHEN now() < c.opens_at THEN 'NOT_OPEN'
                   WHEN now() >= c.closes_at THEN 'CLOSED'
                   WHEN c.state = 'paused' THEN 'PAUSED'
                   WHEN s.remaining = 0 OR now() < c.stocked_from THEN 'SOLD_OUT'
                   ELSE 'ISSUED'
               END AS verdict
        FROM unnest(%(users)s::text[], %(keys)s::text[], %(codes)s::text[])
             WITH ORDINALITY AS request (user_id, key, code, n)
        CROSS JOIN coupons c
        JOIN coupon_stock s ON s.coupon_id = c.id AND s.lane = 0
        LEFT JOIN LATERAL (
            SELECT * FROM issuances i WHERE i.coupon_id = c.id AND i.user_id = request.user_id LIMIT 1
        ) AS held ON true
        LEFT JOIN LATERAL (
            SELECT i.coupon_id FROM issuances i
            WHERE i.user_id = request.user_id AND i.idempotency_key = request.key LIMIT 1
        ) AS keyed ON true
        WHERE c.id = %(coupon_id)s
    ) AS each
"""

RECHECK = _EVALUATED + " ORDER BY n"

# The order matters. The issuances come first: their unique index makes a user's twin requests wait
# for each other before either touches the stock, and the hot stock row is locked last and
# shortest. They are written in the order of the users, the same in every process: two statements
# with users in common wait for each other, but never in a circle. The conditional UPDATE then takes
# the pieces, all or none. Where too few are left, because another statement took some while this one
# waited for the row, the outbox rows would name no issuance; their check refuses that and with it the
# whole statement, so the issuances go too.
# A refusal that the snapshot shows inserts nothing, so it writes nothing and takes no
# transaction id.
ISSUE = f"""
WITH evaluated AS MATERIALIZED ({_EVALUATED}),
issued AS (
    INSERT INTO issuances (coupon_id, user_id, code, idempotency_key, expires_at)
    SELECT coupon_id, requester, new_code, key, now() + make_interval(days => valid_days)
    FROM evaluated WHERE verdict = 'ISSUED' AND place <= remaining
    ORDER BY requester COLLATE "C"
    ON CONFLICT DO NOTHING
    RETURNING id, user_id, code, issued_at, expires_at
),
reserved AS (
    UPDATE coupon_stock AS s SET remaining = s.remaining - taken.pieces
    FROM (SELECT count(*)::int AS pieces FROM issued) AS taken
    WHERE s.coupon_id = %(coupon_id)s AND s.lane = 0 AND taken.pieces > 0 AND s.remaining >= taken.pieces
    RETURNING s.coupon_id
),
outbox_rows AS (
    INSERT INTO outbox (kind, issuance_id)
    SELECT 'issuance.issued', CASE WHEN reserved.coupon_id IS NOT NULL THEN issued.id END
    FROM issued LEFT JOIN reserved ON true
)
SELECT evaluated.n, evaluated.coupon_id, evaluated.coupon_name, evaluated.opens_at, evaluated.now,
       coalesce(issued.id, evaluated.id) AS id,
       coalesce(issued.user_id, evaluated.user_id) AS user_id,
       coalesce(issued.code, evaluated.code) AS code,
       coalesce(issued.issued_at, evaluated.issued_at) AS issued_at,
       coalesce(issued.expires_at, evaluated.expires_at) AS expires_at,
       CASE
           WHEN evaluated.verdict <> 'ISSUED' OR issued.id IS NOT NULL THEN evaluated.verdict
           WHEN evaluated.place > evaluated.remaining THEN 'TOO_LATE'
           ELSE 'LOST_TO_TWIN'
       END AS verdict
FROM evaluated LEFT JOIN issued ON issued.code = evaluated.new_code
ORDER BY evaluated.n
"""

_NO_PIECE_LEFT = "outbox_needs_a_reserved_piece"
_LOST_TO_TWIN = "LOST_TO_TWIN"
_TOO_LATE = "TOO_LATE"


def issue(
    pool: Pool,
    coupon_id: int,
    user_id: str,
    key: str | None = None,
    *,
    deadline: Deadline | None = None,
    statement: LiteralString = ISSUE,
) -> IssueResult:
    """Try to issue one coupon to one user; see `issue_batch`."""
    return issue_batch(pool, coupon_id, [IssueRequest(user_id, key)], deadline=deadline, statement=statement)[0]


def issue_batch(
    pool: Pool,
    coupon_id: int,
    requests: Sequence[IssueRequest],
    *,
    deadline: Deadline | None = None,
    statement: LiteralString = ISSUE,
) -> list[IssueResult]:
    """Try to issue one coupon to each of several users. «Issued» means committed.

    One round trip; one more where a twin request of a user, or one with the same key, won, or
    where other statements took pieces meanwhile and too few are left for all of these.
    After a lost connection the batch is tried once more with the same codes, by which it recognises
    issuances that were committed although the answer was lost.

    Args:
        pool: autocommit connections at READ COMMITTED, with timeouts.
        coupon_id: 1 to 2^63 - 1.
        requests: of different users.
        deadline: bounds all round trips together; each has the pool's own bound when left out.
        statement: tests put wrong statements here, to see that they are caught.

    Raises:
        couponapp.errors.Unavailable: and its children; after a `ConnectionLost` or
            `StatementTimedOut` the outcome is unknown, and the same key tells it later.
    """
    batch = _Batch(pool, coupon_id, requests, deadline)
    try:
        batch.run(statement)
    except ConnectionLost as lost:
        try:
            batch.run(statement)
        except DeadlineExceeded:
            raise lost from None  # no time is left for a second try: report what went wrong first
    return [batch.results[number] for number in range(len(requests))]


class _Batch:
    """The requests of one batch, and the results so far."""

    def __init__(self, pool: Pool, coupon_id: int, requests: Sequence[IssueRequest], deadline: Deadline | None) -> None:
        self._pool = pool
        self._coupon_id = coupon_id
        self._requests = requests
        self._codes = [new_code() for _ in requests]
        self._deadline = deadline
        self.results: dict[int, IssueResult] = {}

    def run(self, statement: LiteralString) -> None:
        """Execute the statement until every request has its result.

        It ends: it runs again only because another statement took pieces, and those run out.
        """
        while unanswered := [number for number in range(len(self._requests)) if number not in self.results]:
            try:
                self._keep_results(unanswered, self._execute(statement, unanswered))
            except ConstraintViolated as refusal:
                if refusal.constraint != _NO_PIECE_LEFT:
                    raise
                if len(unanswered) == 1:
                    self.results[unanswered[0]] = IssueResult(Outcome.SOLD_OUT)

    def _keep_results(self, numbers: Sequence[int], rows: Mapping[int, Row]) -> None:
        if not rows:
            self.results |= dict.fromkeys(numbers, IssueResult(Outcome.COUPON_NOT_FOUND))
        lost = [number for number, row in rows.items() if row["verdict"] == _LOST_TO_TWIN]
        for number, row in rows.items():
            # A request that lost to its twin has left a piece for one that came too late: that one runs again.
            if row["verdict"] not in (_LOST_TO_TWIN, _TOO_LATE):
                self.results[number] = self._result(number, row)
            elif row["verdict"] == _TOO_LATE and not lost:
                self.results[number] = IssueResult(Outcome.SOLD_OUT)
        if lost:
            for number, row in self._execute(RECHECK, lost).items():
                if row["verdict"] == Outcome.ISSUED:
                    # No twin and no such key: the new code exists already, at a chance of 2^-99.
                    raise Unavailable()
                self.results[number] = self._result(number, row)

    def _execute(self, statement: LiteralString, numbers: Sequence[int]) -> dict[int, Row]:
        params = {
            "coupon_id": self._coupon_id,
            "users": [self._requests[number].user_id for number in numbers],
            "keys": [self._requests[number].key for number in numbers],
            "codes": [self._codes[number] for number in numbers],
        }
        timeout_s = self._deadline.remaining_s() if self._deadline is not None else None
        rows = self._pool.fetch_all(statement, params, timeout_s=timeout_s)
        return {numbers[row["n"] - 1]: row for row in rows}

    def _result(self, number: int, row: Row) -> IssueResult:
        outcome = Outcome(row["verdict"])
        if outcome is Outcome.NOT_OPEN:
            return IssueResult(outcome, None, row["opens_at"], (row["opens_at"] - row["now"]).total_seconds())
        if outcome not in (Outcome.ISSUED, Outcome.REPLAYED, Outcome.ALREADY_ISSUED):
            return IssueResult(outcome)
        issuance = Issuance.from_row(row)
        # Our own code: committed, although the answer was lost.
        return IssueResult(Outcome.ISSUED if issuance.code == self._codes[number] else outcome, issuance)
