"""Child processes with pid files, so that the next start finds those that a killed supervisor left running."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

KILL_WAIT_S = 3.0


class Child:
    """A child process in a session of its own, so that Ctrl-C reaches the supervisor only."""

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
            name: the name of its pid file.
            run_dir: the directory of the pid file.
            command: the program and its arguments.
            environ: its whole environment; by default that of this process.
            log: the file for its output; by default that of this process.
            end_signal: the signal that makes it end.
            directory: its working directory; by default that of this process.
        """
        self.name = name
        self._end_signal = end_signal
        self._pid_file = run_dir / f"{name}.pid"
        self.process = subprocess.Popen(
            command,
            cwd=directory,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        _write_pid_file(self._pid_file, self.process.pid, end_signal)

    def exit_code(self) -> int | None:
        """Return the exit code, or None while the process runs."""
        return self.process.poll()

    def ask_to_end(self) -> None:
        """Send the end signal; nothing happens once the process has ended."""
        self.process.send_signal(self._end_signal)

    def wait_or_kill(self, timeout_s: float) -> None:
        """Wait for the end; after `timeout_s` seconds kill the process and its children."""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            _kill_tree(self.process.pid)
            self.process.wait(KILL_WAIT_S)
        self._pid_file.unlink(missing_ok=True)

    def end(self, timeout_s: float = 5.0) -> None:
        """Send the end signal and wait; after `timeout_s` seconds kill the process and its children."""
        self.ask_to_end()
        self.wait_or_kill(timeout_s)


# These end last, in this order: the other processes use them.
_LAST = ("valkey", "postgres")


def end_orphans(run_dir: Path, timeout_s: float = 5.0) -> list[str]:
    """End the processes that a killed supervisor left running.

    A process is recognised by pid and start time, because a pid may have been reused.

    Args:
        run_dir: the directory of the pid files.
        timeout_s: how long each group of processes may take before it is killed, in seconds.

    Returns:
        The names of the processes that were ended.
    """
    ended = []
    files = sorted(run_dir.glob("*.pid"))
    groups = [[path for path in files if path.stem not in _LAST]]
    groups += [[path for path in files if path.stem == name] for name in _LAST]
    for group in groups:
        orphans = {path: orphan for path in group if (orphan := _read_pid_file(path)) is not None}
        for process, end_signal in orphans.values():
            process.send_signal(end_signal)
        give_up_s = time.monotonic() + timeout_s
        for path, (process, _) in orphans.items():
            ended.append(path.stem)
            if not _has_ended_by(process, give_up_s):
                _kill_tree(process.pid)
                _has_ended_by(process, time.monotonic() + KILL_WAIT_S)
        for path in group:
            path.unlink(missing_ok=True)
    return ended


def _has_ended_by(process: psutil.Process, give_up_s: float) -> bool:
    # Not psutil's wait(): if no parent reaps it, an ended process stays a zombie for ever.
    while _is_alive(process):
        if time.monotonic() > give_up_s:
            return False
        time.sleep(0.05)
    return True


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _write_pid_file(path: Path, pid: int, end_signal: signal.Signals) -> None:
    try:
        started = psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps({"pid": pid, "started": started, "signal": int(end_signal)}))
    draft.replace(path)


def _read_pid_file(path: Path) -> tuple[psutil.Process, signal.Signals] | None:
    try:
        entry = json.loads(path.read_text())
        process = psutil.Process(int(entry["pid"]))
        if abs(process.create_time() - float(entry["started"])) < 0.05 and _is_alive(process):
            return process, signal.Signals(entry["signal"])
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        pass
    return None


def _kill_tree(pid: int) -> None:
    try:
        parent = psutil.Process(pid)
        family = [*parent.children(recursive=True), parent]
    except psutil.NoSuchProcess:
        return
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
