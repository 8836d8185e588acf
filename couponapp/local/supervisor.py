"""Runs web server and notification worker, and restarts them and the embedded servers when they end."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from couponapp.errors import ConfigurationError
from couponapp.local.embedded import EmbeddedServer
from couponapp.local.processes import Child
from couponapp.signals import StopSignal

CHECK_INTERVAL_S = 0.5
# With PostgreSQL's 3 s and Valkey's 1 s everything ends within 10 s.
END_TIMEOUT_S = 5.0
MAX_RESTARTS = 5
RESTART_WINDOW_S = 60.0

COMMANDS: Mapping[str, list[str]] = {
    "web": [sys.executable, "-m", "gunicorn"],
    # On one machine requests have priority over notifications.
    "worker": ["nice", "-n", "10", sys.executable, "-m", "couponapp.worker"],
}


def report(text: str) -> None:
    """Print a line for the person at the terminal."""
    print(f"couponapp: {text}", flush=True)


class Supervisor:
    """Starts web server and worker and keeps them and the embedded servers running."""

    def __init__(self, run_dir: Path, environ: Mapping[str, str], servers: Sequence[EmbeddedServer]) -> None:
        """Start nothing yet.

        Args:
            run_dir: the directory of the pid files.
            environ: the whole environment of web server and worker.
            servers: the embedded servers, running.
        """
        self._run_dir = run_dir
        self._environ = environ
        self._servers = servers
        self._children: dict[str, Child] = {}
        self._restarts: list[float] = []

    def start(self) -> None:
        """Start web server and worker."""
        for name in COMMANDS:
            self._start(name)

    def check(self) -> None:
        """Check that web server and worker run.

        Raises:
            ConfigurationError: one has ended; it has written the reason to standard error.
        """
        for name, child in self._children.items():
            if (code := child.exit_code()) is not None:
                raise ConfigurationError(f"{name} ended with {code}")

    def run(self, stop: StopSignal) -> None:
        """Restart what ends, until the stop signal.

        Raises:
            ConfigurationError: there were more than `MAX_RESTARTS` in `RESTART_WINDOW_S` seconds.
        """
        while not stop.wait(CHECK_INTERVAL_S):
            for server in self._servers:
                if server.child is not None and (code := server.child.exit_code()) is not None:
                    self._count_restart(server.child.name, code)
                    server.start(self._run_dir)
            for name, child in self._children.items():
                if (code := child.exit_code()) is not None:
                    self._count_restart(name, code)
                    self._start(name)

    def end(self) -> None:
        """End web server and worker at the same time."""
        for child in self._children.values():
            child.ask_to_end()
        give_up_s = time.monotonic() + END_TIMEOUT_S
        for child in self._children.values():
            child.wait_or_kill(max(0.1, give_up_s - time.monotonic()))

    def _count_restart(self, name: str, code: int) -> None:
        now_s = time.monotonic()
        self._restarts = [*(at_s for at_s in self._restarts if now_s - at_s < RESTART_WINDOW_S), now_s]
        if len(self._restarts) > MAX_RESTARTS:
            raise ConfigurationError(f"{name} ends again and again (last with {code})")
        report(f"{name} ended with {code}; starting it again")

    def _start(self, name: str) -> None:
        self._children[name] = Child(name, self._run_dir, COMMANDS[name], environ=self._environ)
