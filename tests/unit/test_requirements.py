"""Each requirements file is complete, so that one `pip install` is enough for every command."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.servers import ROOT

FILES = ["requirements.txt", "requirements-load.txt", "requirements-dev.txt"]  # each contains the one before it


def pins(path: Path) -> set[str]:
    """Packages with their versions. Conditions may differ: a larger file may need a package on more systems."""
    return set(re.findall(r"^([a-z0-9._-]+==[^ ]+)", path.read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize(("smaller", "larger"), list(pairwise(FILES)))
def test_a_larger_file_contains_the_smaller_one_with_the_same_versions(smaller: str, larger: str) -> None:
    assert pins(ROOT / smaller), smaller
    assert pins(ROOT / smaller) <= pins(ROOT / larger), "run make requirements"
    assert not pins(ROOT / larger) <= pins(ROOT / smaller)


@pytest.mark.parametrize("name", FILES)
def test_what_is_asked_for_is_pinned(name: str) -> None:
    asked_for = re.findall(r"^([a-z][a-z0-9-]*)", (ROOT / name.replace(".txt", ".in")).read_text(), re.MULTILINE)
    pinned = {pin.partition("==")[0] for pin in pins(ROOT / name)}
    assert asked_for
    assert set(asked_for) <= pinned, "run make requirements"
