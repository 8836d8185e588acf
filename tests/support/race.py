"""Many callers at the same moment, and a judge who looks at what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import LiteralString

import psycopg

from couponapp.errors import CouponAppError
from couponapp.issuing.statement import ISSUE, IssueRequest, IssueResult, Outcome, issue_batch
from couponapp.operating.verify import verify
from couponapp.storage.pool import Pool
from tests.support.servers import wait_until

CONNECTIONS = 50
HELD = (Outcome.ISSUED, Outcome.REPLAYED, Outcome.ALREADY_ISSUED)

WAITING = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'couponapp-test' AND wait_event_type = 'Lock'
"""


@dataclass(frozen=True)
class Told:
    """What one call was told: an attempt, or the error instead."""

    user: str
    attempt: IssueResult | None
    error: str = ""


def race(
    pool: Pool,
    url: str,
    coupon_id: int,
    calls: Sequence[str],
    *,
    together: int = 1,
    statement: LiteralString = ISSUE,
) -> list[Told]:
    """Let all calls (a user each) run on 50 connections, `together` in each statement, the first 50 at the same moment.

    The moment is made, not hoped for: a stranger holds the stock row until every connection waits
    for a lock, so each of the first calls has read its snapshot before any of them wrote.
    """

    def call(users: Sequence[str]) -> list[Told]:
        requests = [IssueRequest(user) for user in users]
        try:
            attempts = issue_batch(pool, coupon_id, requests, statement=statement)
        except CouponAppError as error:
            return [Told(user, None, f"{type(error).__name__}: {error}") for user in users]
        return [Told(user, attempt) for user, attempt in zip(users, attempts, strict=True)]

    with psycopg.connect(url, autocommit=True) as observer, psycopg.connect(url) as stranger:
        stranger.execute("SELECT FROM coupon_stock WHERE coupon_id = %s FOR UPDATE", [coupon_id])
        groups = [calls[start : start + together] for start in range(0, len(calls), together)]
        expected = min(len(groups), CONNECTIONS) if pool_is_open_for(pool, coupon_id) else 0
        with ThreadPoolExecutor(CONNECTIONS) as executor:
            told = [executor.submit(call, group) for group in groups]
            wait_until(lambda: _waiting(observer) >= expected, timeout_s=20, what=f"{expected} callers wait")
            stranger.rollback()
            return [one for future in told for one in future.result()]


def pool_is_open_for(pool: Pool, coupon_id: int) -> bool:
    """There is something to wait for: an empty stock is seen in the snapshot and never locked."""
    row = pool.fetch_one("SELECT remaining FROM coupon_stock WHERE coupon_id = %s", [coupon_id])
    return row is not None and row["remaining"] > 0


def _waiting(observer: psycopg.Connection[tuple[int]]) -> int:
    row = observer.execute(WAITING).fetchone()
    assert row is not None
    return row[0]


def judge(pool: Pool, coupon_id: int, stock: int, told: Sequence[Told]) -> list[str]:
    """Everything that is wrong after a race; empty when the guarantees held."""
    found = list(verify(pool).violations)
    owners = {
        row["user_id"]: row["code"]
        for row in pool.fetch_all("SELECT user_id, code FROM issuances WHERE coupon_id = %s", [coupon_id])
    }
    users = {one.user for one in told}
    found += [f"{one.user} was answered {one.error}" for one in told if one.attempt is None]
    if len(owners) != min(stock, len(users)):
        found.append(f"{len(owners)} issued of {stock} to {len(users)} users")
    issued = Counter(one.user for one in told if one.attempt and one.attempt.outcome is Outcome.ISSUED)
    if issued != Counter(owners.keys()):
        found.append("those told ISSUED are not, once each, those who hold one")
    for one in told:
        if one.attempt is None:
            continue
        if one.attempt.outcome in HELD:
            assert one.attempt.issuance is not None
            if owners.get(one.user) != one.attempt.issuance.code:
                found.append(f"{one.user} was told a code that is not theirs")
        elif one.attempt.outcome is not Outcome.SOLD_OUT:
            found.append(f"{one.user} was told {one.attempt.outcome}")
    found += [
        f"{one.user} holds one and was told SOLD_OUT"
        for one in told
        if one.attempt and one.attempt.outcome is Outcome.SOLD_OUT and one.user in owners
    ]
    return found
