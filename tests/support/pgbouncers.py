"""PgBouncer for the tests, where the machine has it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from loadtest.testbed.pgbouncer import RECOMMENDED, PgBouncer, binary

# A person's run skips these with a word; in CI, where it must not be missing, they fail.
needs_pgbouncer = pytest.mark.skipif(
    binary() is None and not os.environ.get("CI"), reason="no PgBouncer on this machine"
)


@contextmanager
def running_pgbouncer(directory: Path, upstream: str, *, settings: str = RECOMMENDED) -> Iterator[PgBouncer]:
    """One in front of the server of this address."""
    pgbouncer = PgBouncer(directory / "pgbouncer", upstream, settings=settings)
    pgbouncer.start()
    try:
        yield pgbouncer
    finally:
        pgbouncer.end()
