"""What the database holds after a run; the responses are compared with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from couponapp.operating.verify import verify
from couponapp.storage.pool import Pool

ISSUANCES = """
SELECT i.user_id, i.code, i.issued_at < c.opens_at AS is_early, (
    SELECT max(extract(epoch FROM o.sent_at - i.issued_at))::float8 FROM outbox o WHERE o.issuance_id = i.id
) AS notified_s
FROM issuances i JOIN coupons c ON c.id = i.coupon_id WHERE i.coupon_id = %s
"""


@dataclass(frozen=True)
class Ledger:
    """One coupon after the run.

    Attributes:
        total: pieces.
        issued: number of issuances.
        waiting: holders who are not notified yet.
        violations: what `flask coupons verify` finds.
        owners: the issuance's code by user.
        early: issuances from before the opening.
        slowest_notification_s: from issuing to the channel's acceptance, of those that were sent.
    """

    total: int
    issued: int
    waiting: int
    violations: list[str]
    owners: dict[str, str]
    early: int
    slowest_notification_s: float


def read(pool: Pool, coupon_id: int) -> Ledger:
    """Read the ledger of one coupon.

    Args:
        pool: of the service's database.
        coupon_id: of the event.
    """
    report, rows = verify(pool, coupon_id), pool.fetch_all(ISSUANCES, [coupon_id])
    counts = report.coupons[0]
    return Ledger(
        total=counts["total"],
        issued=counts["issued"],
        waiting=counts["waiting"],
        violations=report.violations,
        owners={row["user_id"]: row["code"] for row in rows},
        early=sum(row["is_early"] for row in rows),
        slowest_notification_s=round(max((row["notified_s"] or 0.0 for row in rows), default=0.0), 3),
    )


def read_when_notified(pool: Pool, coupon_id: int, *, timeout_s: float, progress: Callable[[str], object]) -> Ledger:
    """Read the ledger once every holder is notified, or after a time-out.

    Args:
        pool: of the service's database.
        coupon_id: of the event.
        timeout_s: how long to wait, in seconds.
        progress: called with a line to print while it waits.
    """
    give_up_s = time.monotonic() + timeout_s
    printed = -1
    while (waiting := verify(pool, coupon_id).coupons[0]["waiting"]) and time.monotonic() < give_up_s:
        if waiting != printed:
            progress(f"  {waiting} holders are still to be notified")
        printed = waiting
        time.sleep(0.5)
    return read(pool, coupon_id)
