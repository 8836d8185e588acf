"""What the caller holds, a page at a time."""

from __future__ import annotations

from couponapp.issuing import issuances
from couponapp.web import inputs
from couponapp.web.parts import parts


def asked_page(user_id: str) -> tuple[list[issuances.Issuance], str | None]:
    """The issuances that `?limit=` and `?cursor=` ask for, newest first, and the cursor of those after them.

    Args:
        user_id: whose.

    Raises:
        InvalidRequest: a parameter is wrong.
        Unavailable: the database does not answer in time.
    """
    limit, before_id = inputs.page()
    # One more than asked for tells whether another page follows.
    found = issuances.list_of_holder(
        parts().read_pool, user_id, limit=limit + 1, before_id=before_id or issuances.NEWEST
    )
    page = found[:limit]
    return page, inputs.encode_cursor(page[-1].id) if len(found) > limit else None
