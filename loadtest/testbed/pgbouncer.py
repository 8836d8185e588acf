"""A PgBouncer in front of a PostgreSQL, configured as docs/settings.md recommends."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg

from couponapp.local.postgres import free_port
from couponapp.local.processes import Child
from loadtest.driver.http_client import HOST
from loadtest.testbed.processes import kill
from loadtest.testbed.waiting import wait_until_ready

# The role settings that the service needs behind a pooler, with its own values at the default deadline.
ROLE_SETTINGS = {"statement_timeout": "800ms", "lock_timeout": "700ms", "idle_in_transaction_session_timeout": "5s"}
# Fewer connections to PostgreSQL than the web processes have to PgBouncer, so that they must share; more
# than those that issue, so that look-ups find one while all of these wait for a lock.
RECOMMENDED = """
pool_mode = transaction
ignore_startup_parameters = options
server_login_retry = 1
default_pool_size = 8
"""


def binary() -> str | None:
    """Return the path of the program, where this machine has it."""
    # Debian's package puts it into a directory that is not on an ordinary user's path.
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")


def prepare_role(url: str) -> None:
    """Set, for the role of this address, the settings that a pooler drops.

    Args:
        url: PostgreSQL's own address.
    """
    with psycopg.connect(url, autocommit=True) as db:
        for name, value in ROLE_SETTINGS.items():
            db.execute(f"ALTER ROLE CURRENT_USER SET {name} = '{value}'".encode())


class PgBouncer:
    """One process, which can be killed and started again on its port."""

    def __init__(self, home: Path, upstream: str, *, settings: str = RECOMMENDED) -> None:
        """Describe it; `start` starts it.

        Args:
            home: a directory of its own.
            upstream: PostgreSQL's address; clients use its role and password.
            settings: lines of its configuration.
        """
        self._home = home
        self._port = free_port()
        self._upstream = urlsplit(upstream)
        self._settings = settings
        self.child: Child | None = None

    @property
    def url(self) -> str:
        """The database's address through PgBouncer."""
        return self._address(self._upstream.path)

    def start(self) -> None:
        """Start it and wait until it listens.

        Raises:
            RuntimeError: it does not start; the message has the log.
        """
        self._home.mkdir(parents=True, exist_ok=True)
        configuration = self._write_configuration()
        # It refuses to run as root, and changes its user after it has read its files.
        other_user = ["-u", pwd.getpwnam("nobody").pw_name] if os.geteuid() == 0 else []
        log_file = self._home / "pgbouncer.log"
        with open(log_file, "ab") as log:
            self.child = Child("pgbouncer", self._home, [binary() or "", *other_user, configuration], log=log)
        wait_until_ready(self.child, self._listens, "PgBouncer does not start", log=log_file)

    def kill(self) -> None:
        """Kill it (SIGKILL)."""
        kill(self.child)

    def end(self) -> None:
        """Stop it."""
        if self.child is not None:
            self.child.end()

    def command(self, command: str) -> None:
        """Run a command on its console, such as `PAUSE`."""
        with psycopg.connect(self._address("/pgbouncer"), autocommit=True) as console:
            console.execute(command.encode())

    def _address(self, path: str) -> str:
        login = self._upstream.netloc.rpartition("@")[0]
        return urlunsplit(self._upstream._replace(netloc=f"{login}@{HOST}:{self._port}", path=path))

    def _write_configuration(self) -> Path:
        users, configuration = self._home / "users.txt", self._home / "pgbouncer.ini"
        for path in (users, configuration):
            path.touch(mode=0o600)
        users.write_text(f'"{self._upstream.username}" "{self._upstream.password}"\n')
        configuration.write_text(
            f"[databases]\n* = host={self._upstream.hostname} port={self._upstream.port}\n"
            f"[pgbouncer]\nlisten_addr = {HOST}\nlisten_port = {self._port}\nunix_socket_dir =\n"
            f"auth_type = scram-sha-256\nauth_file = {users}\nadmin_users = {self._upstream.username}\n"
            f"{self._settings}"
        )
        return configuration

    def _listens(self) -> bool:
        with suppress(OSError), socket.create_connection((HOST, self._port), timeout=1):
            return True
        return False
