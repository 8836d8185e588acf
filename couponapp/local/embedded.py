"""What the embedded servers have in common."""

from __future__ import annotations

import abc
import importlib.util
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from couponapp.errors import ConfigurationError
from couponapp.local.processes import Child

_POLL_S = 0.02


class EmbeddedServer(abc.ABC):
    """A server of our own, reachable over loopback with a password."""

    END_TIMEOUT_S = 3.0

    def __init__(self, home: Path, *, password: str, port: int) -> None:
        """Configure the server without starting it.

        Args:
            home: the directory of its data, configuration and log.
            password: the password of its one user.
            port: its port on 127.0.0.1.
        """
        self._home = home.resolve()
        self._log = self._home / "server.log"
        self._password = password
        self._port = port
        self.child: Child | None = None

    @property
    @abc.abstractmethod
    def url(self) -> str:
        """The server's address, password included."""

    @abc.abstractmethod
    def start(self, run_dir: Path) -> None:
        """Start the server and wait until it answers.

        Args:
            run_dir: the directory of the pid file.

        Raises:
            ConfigurationError: it does not start; the message names its log.
        """

    def end(self) -> None:
        """Shut the server down, by force after `END_TIMEOUT_S` seconds."""
        if self.child is not None:
            self.child.end(self.END_TIMEOUT_S)

    @contextmanager
    def running(self, run_dir: Path) -> Iterator[Self]:
        """Run the server until the block ends, even if its start is interrupted; arguments and errors as in `start`."""
        try:
            self.start(run_dir)
            yield self
        finally:
            self.end()

    @abc.abstractmethod
    def _answers(self) -> bool:
        """Return whether the server answers now."""

    def _wait_until_it_answers(self, child: Child, give_up_s: float) -> bool:
        """Wait until a started server answers; if it does not in time, end it and return False."""
        self.child = child
        while time.monotonic() < give_up_s and child.exit_code() is None:
            if self._answers():
                return True
            time.sleep(_POLL_S)
        child.end()
        return False


def package_directory(name: str, setting: str) -> Path:
    """Return the directory of a package that holds binaries.

    The package is found, not imported: importing has side effects and needs further packages.

    Args:
        name: the package.
        setting: the environment variable of the server's address, for the error.

    Raises:
        ConfigurationError: the package does not exist for this platform.
    """
    package = importlib.util.find_spec(name)
    if package is None or not package.submodule_search_locations:
        raise ConfigurationError(f"{setting} is not set, and {name} does not exist for this platform")
    return Path(package.submodule_search_locations[0])
