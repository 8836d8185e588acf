"""Statements that look like ours and are wrong, by what they do: a good test tells each from ours."""

from __future__ import annotations

from couponapp.issuing.statement import ISSUE


def changed(right: str, wrong: str) -> str:
    """Our statement with one piece of it replaced, which must be there."""
    assert ISSUE.count(right) == 1, right
    return ISSUE.replace(right, wrong)


TOLD_OF_A_RESERVED_PIECE = "CASE WHEN reserved.coupon_id IS NOT NULL THEN issued.id END"
OUTBOX_ROWS = ISSUE[ISSUE.index("outbox_rows AS (") : ISSUE.index("SELECT evaluated.n, evaluated.coupon_id")]
WRONG_STATEMENTS = {
    "takes one piece for all of a group": changed("s.remaining - taken.pieces", "s.remaining - 1"),
    "lets in more of a group than there are pieces": changed(" AND place <= remaining", "").replace(
        TOLD_OF_A_RESERVED_PIECE, "issued.id"
    ),
    "tells holders that it is sold out": changed(
        "WHEN held.id IS NOT NULL THEN", "WHEN held.id IS NOT NULL AND s.remaining > 0 THEN"
    ),
    "takes any key of the user for one of this coupon": changed(
        "WHEN keyed.coupon_id = c.id THEN", "WHEN keyed.coupon_id IS NOT NULL THEN"
    ),
    "takes no piece": changed("s.remaining - taken.pieces", "s.remaining"),
    "is sold out too early": changed("s.remaining = 0 OR", "s.remaining <= 5 OR"),
    "goes on while paused": changed("WHEN c.state = 'paused' THEN 'PAUSED'", ""),
    "does not wait a second after a restock": changed(" OR now() < c.stocked_from", ""),
    "shows a new code to a holder": changed("coalesce(issued.code, evaluated.code)", "evaluated.new_code"),
    "writes no outbox row": ISSUE.replace(OUTBOX_ROWS.rstrip(), "outbox_rows AS (SELECT 1)\n"),
}
