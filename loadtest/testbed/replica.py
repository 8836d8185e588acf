"""A standby that follows another PostgreSQL, and can take its place."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg

from couponapp.errors import ConfigurationError
from couponapp.local.postgres import EmbeddedPostgres, binary, free_port

COPY_TIMEOUT_S = 60
FOLLOWS_TIMEOUT_S = 20.0
PROMOTE_TIMEOUT_S = 20
POLL_S = 0.02

FOLLOWING = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
SYNCHRONOUS = "SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')"
PROMOTE = "SELECT pg_promote(true, %s)"


class Replica(EmbeddedPostgres):
    """A streaming copy of a server, made with `pg_basebackup`; hot, so it answers what only reads."""

    def __init__(self, home: Path, primary: EmbeddedPostgres) -> None:
        """Describe it; `start` copies the primary, starts the copy and waits until it answers.

        Args:
            home: a directory of its own.
            primary: whom it follows.
        """
        super().__init__(home, password=urlsplit(primary.url).password or "", port=free_port())
        self._primary = primary

    @property
    def either_url(self) -> str:
        """The address of whichever of the two takes writes."""
        mine, parts = urlsplit(self.url), urlsplit(self._primary.url)
        netloc = f"{parts.netloc},{mine.hostname}:{mine.port}"
        return urlunsplit(parts._replace(netloc=netloc, query="target_session_attrs=read-write"))

    def start(self, run_dir: Path) -> None:
        """Copy, start, and wait until it follows; arguments and errors as of its parent."""
        super().start(run_dir)
        self._wait_for(FOLLOWING)

    def make_synchronous(self) -> None:
        """From now on the primary's commits wait until they are on this one's disk too."""
        self._tell(self._primary.url, "ALTER SYSTEM SET synchronous_standby_names = '*'")
        self._wait_for(SYNCHRONOUS)

    def follow_no_more(self) -> None:
        """Receive nothing any longer, as when the network between the two is gone."""
        self._tell(self.url, "ALTER SYSTEM SET primary_conninfo = ''")
        self._wait_for(FOLLOWING, there=False)

    def promote(self) -> None:
        """Take the primary's place; returns when this one takes writes.

        Raises:
            RuntimeError: it does not.
        """
        with psycopg.connect(self.url, autocommit=True) as db:
            if db.execute(PROMOTE, [PROMOTE_TIMEOUT_S]).fetchone() != (True,):
                raise RuntimeError("the standby was not promoted")

    def _make_data_directory(self) -> None:
        # As the server's own user, who must own what he will serve.
        draft = self._home / "data.draft"
        command = [
            *self._unprivileged(),
            binary("pg_basebackup"),
            *("-d", self._primary.url, "-D", str(draft), "--write-recovery-conf", "--checkpoint=fast"),
        ]
        result = subprocess.run(command, capture_output=True, text=True, timeout=COPY_TIMEOUT_S, check=False)
        if result.returncode:
            raise ConfigurationError(f"pg_basebackup failed: {' '.join(result.stderr.split())}")
        draft.rename(self._data)

    def _tell(self, url: str, setting: str) -> None:
        with psycopg.connect(url, autocommit=True) as db:
            db.execute(setting.encode())
            db.execute("SELECT pg_reload_conf()")

    def _wait_for(self, sql: str, *, there: bool = True) -> None:
        give_up_s = time.monotonic() + FOLLOWS_TIMEOUT_S
        with psycopg.connect(self._primary.url, autocommit=True) as db:
            while db.execute(sql.encode()).fetchone() != ((1,) if there else (0,)):
                if time.monotonic() > give_up_s:
                    raise RuntimeError("the standby does not follow" if there else "the standby still follows")
                time.sleep(POLL_S)
