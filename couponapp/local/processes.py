"""Child processes that leave a trace on disk, so that the next start finds orphans."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

KILL_WAIT_S = 3.0


class Child:
    """A child process in a session of its own: Ctrl-C reaches the supervisor only."""

    def __init__(
        self,
        name: str,
        run_dir: Path,
        command: Sequence[str | Path],
        *,
        environ: Mapping[str, str] | None = None,
        log: IO[bytes] | None = None,
        end_signal: signal.Signals = signal.SIGTERM,
        directory: Path | None = None,
    ) -> None:
        """Start the process.

        Args:
            name: also the name of its pid file.
            run_dir: where the pid file lies.
            command: the program and its arguments.
            environ: its whole environment; this process's when left out.
            log: where its output goes; to this process's when left out.
            end_signal: what asks it to end.
            directory: where it runs; this process's when left out.
        """
        self.name = name
        self._end_signal = end_signal
        self._pid_file = run_dir / f"{name}.pid"
        self.process = subprocess.Popen(
            [str(word) for word in command],
            cwd=directory,
            env=None if environ is None else dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        _write_pid_file(self._pid_file, self.process.pid, end_signal)

    def ask_to_end(self) -> None:
        """Send the end signal."""
        if self.process.poll() is None:
            self.process.send_signal(self._end_signal)

    def wait_or_kill(self, timeout_s: float) -> None:
        """Wait for the end, and force it after `timeout_s` seconds, children included."""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            _kill_tree(self.process.pid)
            self.process.wait(KILL_WAIT_S)
        self._pid_file.unlink(missing_ok=True)

    def end(self, timeout_s: float = 5.0) -> None:
        """Ask, wait, force."""
        self.ask_to_end()
        self.wait_or_kill(timeout_s)


def end_orphans(run_dir: Path, timeout_s: float = 8.0) -> list[str]:
    """End what an earlier supervisor left behind when it was killed.

    A pid alone is not proof, because it may belong to a stranger by now; pid and start time are.

    Returns:
        The names of the processes that were ended.
    """
    ended = []
    # PostgreSQL last: the others still talk to it while they end.
    for pid_file in sorted(run_dir.glob("*.pid"), key=lambda path: path.stem == "postgres"):
        orphan, end_signal = _read_pid_file(pid_file)
        if orphan is not None:
            ended.append(pid_file.stem)
            orphan.send_signal(end_signal)
            try:
                orphan.wait(timeout_s)
            except psutil.TimeoutExpired:
                _kill_tree(orphan.pid)
                orphan.wait(KILL_WAIT_S)
        pid_file.unlink(missing_ok=True)
    return ended


def _write_pid_file(path: Path, pid: int, end_signal: signal.Signals) -> None:
    try:
        started = psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps({"pid": pid, "started": started, "signal": int(end_signal)}))
    draft.replace(path)


def _read_pid_file(path: Path) -> tuple[psutil.Process | None, signal.Signals]:
    try:
        entry = json.loads(path.read_text())
        process = psutil.Process(int(entry["pid"]))
        if abs(process.create_time() - float(entry["started"])) < 0.05 and process.status() != psutil.STATUS_ZOMBIE:
            return process, signal.Signals(entry["signal"])
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        pass
    return None, signal.SIGTERM


def _kill_tree(pid: int) -> None:
    try:
        family = [*psutil.Process(pid).children(recursive=True), psutil.Process(pid)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        try:
            os.kill(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
