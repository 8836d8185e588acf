"""A note at a switch is checked before anything is written."""

from __future__ import annotations

import pytest

from couponapp.errors import InvalidRequest
from couponapp.local.postgres import free_port
from couponapp.operating import switches
from couponapp.storage.pool import Pool, Timeouts


@pytest.mark.parametrize("note", ["x" * 201, "a\nb", "a\tb", "\x1b[31m", "a\0"])
def test_a_note_that_is_too_long_or_no_line_of_text_is_refused_before_anything_connects(note: str) -> None:
    nowhere = Pool(f"postgresql://127.0.0.1:{free_port()}/none", name="test", max_size=1, timeouts=Timeouts.within(100))
    with pytest.raises(InvalidRequest, match="note"):
        switches.set_value(nowhere, switches.ISSUE_BREAKER, "open", note=note)
