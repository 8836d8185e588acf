"""How many generated inputs a test tries: some in `make test`, many in `.ci/nightly generated`."""

from __future__ import annotations

import os

FULL = bool(os.environ.get("COUPON_TEST_FULL"))


def examples(quick: int, *, full: int) -> int:
    """Return how many to try: `quick`, or `full` where `COUPON_TEST_FULL` is set."""
    return full if FULL else quick
