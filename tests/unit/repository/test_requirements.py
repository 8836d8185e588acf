"""Each requirements file is complete, so that one `pip install` is enough for every command."""

from __future__ import annotations

import re
import subprocess
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


def dry_run(command: str, venv: Path) -> str:
    """The commands that make would run."""
    make = ["make", "--dry-run", "--no-print-directory", f"VENV={venv}", *command.split()]
    return subprocess.run(make, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True).stdout


def pip_runs(command: str, venv: Path) -> list[str]:
    """The files that pip would install."""
    return re.findall(r"pip install .* -r (\S+)", dry_run(command, venv))


@pytest.mark.parametrize(
    ("command", "file"),
    [
        *((command, "requirements.txt") for command in ("run", "bench", "faults", "settings-doc")),
        ("load", "requirements-load.txt"),
        *((command, "requirements-dev.txt") for command in ("test", "lint", "format", "test lint")),
    ],
)
def test_each_command_of_make_runs_pip_once(tmp_path: Path, command: str, file: str) -> None:
    assert pip_runs(command, tmp_path / "venv") == [file]


def test_after_a_larger_file_the_smaller_ones_are_not_installed_again(tmp_path: Path) -> None:
    (touched,) = re.findall(r"^touch (.*)$", dry_run("test", tmp_path), re.MULTILINE)
    for marker in touched.split():
        Path(marker).touch()
    assert [pip_runs(command, tmp_path) for command in ("run", "load", "test")] == [[], [], []]
    (tmp_path / ".installed-load").unlink()
    assert pip_runs("load", tmp_path) == ["requirements-load.txt"]
