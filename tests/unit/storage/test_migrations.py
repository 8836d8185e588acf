"""The files of migrations are numbered without gaps."""

from __future__ import annotations

from pathlib import Path

import pytest

from couponapp.errors import ConfigurationError
from couponapp.storage import migrations


def write(directory: Path, **files: str) -> Path:
    for name, sql in files.items():
        (directory / f"{name.removeprefix('m')}.sql").write_text(sql)
    return directory


def test_gaps_and_odd_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="without gaps"):
        migrations.read_migrations(write(tmp_path, m0001_a="", m0003_c=""))
    with pytest.raises(ConfigurationError, match="NNNN"):
        migrations.read_migrations(write(tmp_path, m2_b=""))
