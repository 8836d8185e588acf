"""What the caller holds, a page at a time; for the API and the pages."""

from __future__ import annotations

from couponapp.issuing import issuances
from couponapp.web import inputs
from couponapp.web.current import services


def requested_page(user_id: str) -> tuple[list[issuances.Issuance], str | None]:
    """Return the issuances that `?limit=` and `?cursor=` ask for, newest first, and the next page's cursor.

    Args:
        user_id: of the holder.

    Raises:
        InvalidRequest: a parameter is wrong.
        Unavailable: the database does not answer in time, or the process cannot keep up.
    """
    services().overload.check()
    limit, before_id = inputs.page()
    # One more than requested shows whether another page follows.
    found = issuances.list_of_holder(
        services().read_pool, user_id, limit=limit + 1, before_id=before_id or issuances.NEWEST
    )
    page = found[:limit]
    return page, inputs.encode_cursor(page[-1].id) if len(found) > limit else None
