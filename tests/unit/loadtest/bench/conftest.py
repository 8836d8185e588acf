"""A result that the tests of the benchmark share."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.benchrun import good_result


@pytest.fixture
def measured() -> dict[str, Any]:
    """A result in which the second round was slow for all variants."""
    return good_result()
