"""A standby that follows another PostgreSQL and can be promoted."""

from __future__ import annotations

import subprocess
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg

from couponapp.errors import ConfigurationError
from couponapp.local.postgres import EmbeddedPostgres, binary, free_port
from loadtest.testbed.waiting import wait_until

FOLLOWING = b"SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
SYNCHRONOUS = b"SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')"
PROMOTE = "SELECT pg_promote(true, 20)"


class Replica(EmbeddedPostgres):
    """A streaming copy of a server, made with `pg_basebackup`; hot, so it answers queries that only read."""

    def __init__(self, home: Path, primary: EmbeddedPostgres) -> None:
        """Describe it; `start` copies the primary, starts the copy and waits until it answers.

        Args:
            home: a directory of its own.
            primary: the server that it follows.
        """
        super().__init__(home, password=urlsplit(primary.url).password or "", port=free_port())
        self._primary = primary

    @property
    def either_url(self) -> str:
        """One address for both servers, which leads to the one that takes writes."""
        mine, parts = urlsplit(self.url), urlsplit(self._primary.url)
        netloc = f"{parts.netloc},{mine.hostname}:{mine.port}"
        return urlunsplit(parts._replace(netloc=netloc, query="target_session_attrs=read-write"))

    def start(self, run_dir: Path) -> None:
        """Copy, start, and wait until it follows; arguments and errors as of its parent."""
        super().start(run_dir)
        self._wait_for(FOLLOWING, "the standby does not follow")

    def make_synchronous(self) -> None:
        """Let the primary's commits wait from now on until they are on the standby's disk too."""
        with psycopg.connect(self._primary.url, autocommit=True) as db:
            db.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            db.execute("SELECT pg_reload_conf()")
        self._wait_for(SYNCHRONOUS, "the standby is not synchronous")

    def promote(self) -> None:
        """Become the primary; returns when this server takes writes.

        Raises:
            RuntimeError: it was not promoted.
        """
        with psycopg.connect(self.url, autocommit=True) as db:
            if db.execute(PROMOTE).fetchone() != (True,):
                raise RuntimeError("the standby was not promoted")

    def _make_data_directory(self) -> None:
        # As the server's own user, who must own the files.
        draft = self._home / "data.draft"
        command = [
            *self._unprivileged(),
            binary("pg_basebackup"),
            *("-d", self._primary.url, "-D", str(draft), "--write-recovery-conf", "--checkpoint=fast"),
        ]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if result.returncode:
            raise ConfigurationError(f"pg_basebackup failed: {' '.join(result.stderr.split())}")
        draft.rename(self.data)

    def _wait_for(self, sql: bytes, otherwise: str) -> None:
        with psycopg.connect(self._primary.url, autocommit=True) as db:
            wait_until(lambda: db.execute(sql).fetchone() == (1,), otherwise, timeout_s=20.0)
