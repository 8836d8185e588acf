"""Checks the invariants against the rows of the database."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from couponapp.errors import CouponNotFound
from couponapp.storage.pool import Pool

# One statement, so that all counts are from one snapshot: a running event must not look broken.
CHECK = """
SELECT c.id AS coupon_id, c.total,
       (s.coupon_id IS NOT NULL)::int AS stocks, coalesce(s.remaining, 0) AS remaining, coalesce(s.lowest, 0) AS lowest,
       coalesce(i.issued, 0) AS issued, coalesce(i.holders, 0) AS holders,
       coalesce(i.untold, 0) AS untold, coalesce(i.notified, 0) AS notified
FROM coupons c
LEFT JOIN (
    SELECT coupon_id, sum(remaining) AS remaining, min(remaining) AS lowest FROM coupon_stock GROUP BY 1
) s ON s.coupon_id = c.id
LEFT JOIN (
    SELECT i.coupon_id, count(*) AS issued, count(DISTINCT i.user_id) AS holders,
           count(*) FILTER (WHERE o.id IS NULL) AS untold, count(o.sent_at) AS notified
    FROM issuances i LEFT JOIN outbox_and_archive o ON o.issuance_id = i.id AND o.kind = 'issuance.issued'
    WHERE %(coupon_id)s::bigint IS NULL OR i.coupon_id = %(coupon_id)s
    GROUP BY 1
) i ON i.coupon_id = c.id
WHERE %(coupon_id)s::bigint IS NULL OR c.id = %(coupon_id)s
ORDER BY c.id
"""

STRAYS = """
SELECT 'issuance' AS what, i.id FROM issuances i
WHERE NOT EXISTS (SELECT FROM coupons c WHERE c.id = i.coupon_id)
UNION ALL
SELECT 'outbox row', o.id FROM outbox_and_archive o
WHERE NOT EXISTS (SELECT FROM issuances i WHERE i.id = o.issuance_id)
ORDER BY 1, 2
LIMIT 100
"""


@dataclass(frozen=True)
class Report:
    """The result of `verify`.

    Attributes:
        coupons: counts per coupon: `coupon_id`, `total`, `issued`, `remaining`, `notified`, `waiting`.
        violations: one sentence for each violated invariant; empty if there is none.
    """

    coupons: list[dict[str, Any]]
    violations: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether no invariant is violated."""
        return not self.violations


def verify(pool: Pool, coupon_id: int | None = None) -> Report:
    """Check the invariants of one coupon, or of all coupons and of rows that belong to none.

    The invariants: issued plus remaining is the total; no stock is below zero; there is one issuance per
    user; every issuance has its outbox row. A notification that still waits is counted, but no violation.

    Raises:
        CouponNotFound: there is no coupon `coupon_id`.
    """
    rows = pool.fetch_all(CHECK, {"coupon_id": coupon_id})
    if coupon_id is not None and not rows:
        raise CouponNotFound(f"there is no coupon {coupon_id}")
    report = Report([])
    for row in rows:
        counts = {key: int(value) for key, value in row.items()}
        report.violations.extend(f"coupon {counts['coupon_id']}: {what}" for what in _violations(counts))
        shown = {key: counts[key] for key in ("coupon_id", "total", "issued", "remaining", "notified")}
        report.coupons.append({**shown, "waiting": counts["issued"] - counts["notified"]})
    if coupon_id is None:
        strays = pool.fetch_all(STRAYS)
        report.violations.extend(f"{row['what']} {row['id']} belongs to nothing" for row in strays)
    return report


def _violations(counts: dict[str, int]) -> list[str]:
    found = []
    if not counts["stocks"]:
        found.append("there is no stock")
    elif counts["issued"] + counts["remaining"] != counts["total"]:
        found.append(
            f"{counts['issued']} issued and {counts['remaining']} remaining are not the total of {counts['total']}"
        )
    if counts["lowest"] < 0:
        found.append(f"the stock is {counts['lowest']}")
    if counts["holders"] != counts["issued"]:
        found.append(f"{counts['issued']} issued to {counts['holders']} users")
    if counts["untold"]:
        found.append(f"{counts['untold']} issuances have no outbox row")
    return found
