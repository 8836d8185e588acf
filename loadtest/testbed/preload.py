"""Makes a process's disk full or slow, or its wall clock wrong: `preload.c` in front of its C library."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from pathlib import Path

from couponapp.local.postgres import EmbeddedPostgres

SOURCE = Path(__file__).with_suffix(".c")
COMPILER = "cc"
# In the order of the C file's `struct control`.
_FULL, _SLOW_US, _AHEAD_S, _MET = range(4)


class Control:
    """Disk and clock of all processes that are started with `environ`; right at first.

    Attributes:
        environ: variables for the environment of such a process.
    """

    def __init__(self, home: Path, *, disk: Path) -> None:
        """Compile the library.

        Args:
            home: directory for the library and the control file.
            disk: directory whose files are on the disk that can be full or slow.

        Raises:
            RuntimeError: it does not compile; says why.
        """
        library, self._file = home / "preload.so", home / "preload.control"
        _compile(library)
        self._file.write_bytes(bytes(8 * 4))
        self.environ = {
            "LD_PRELOAD": str(library),
            "FAULT_CONTROL": str(self._file),
            "FAULT_UNDER": str(disk.resolve()),
        }

    def take_over(self, postgres: EmbeddedPostgres, run_dir: Path) -> None:
        """Restart a PostgreSQL with the library, which it keeps at later starts.

        Args:
            postgres: a running server.
            run_dir: directory of its pid file.
        """
        postgres.end()
        postgres.environ |= self.environ
        postgres.start(run_dir)

    def fill_disk(self) -> None:
        """Let no file grow from now on."""
        self._put(_FULL, 1)

    def slow_disk(self, delay_s: float) -> None:
        """Delay each write and each flush from now on, in seconds."""
        self._put(_SLOW_US, round(delay_s * 1_000_000))

    def mend_disk(self) -> None:
        """Make the disk fast and give it room; operations that wait for it continue."""
        self._put(_FULL, 0)
        self._put(_SLOW_US, 0)

    def set_clock(self, ahead_s: int) -> None:
        """Set the wall clock this many seconds ahead; negative: behind; 0: right."""
        self._put(_AHEAD_S, ahead_s)

    @property
    def met(self) -> int:
        """How many calls were changed so far."""
        return int(struct.unpack_from("q", self._file.read_bytes(), 8 * _MET)[0])

    def _put(self, number: int, value: int) -> None:
        # Written in place: the processes have mapped this very file.
        with open(self._file, "r+b", buffering=0) as file:
            file.seek(8 * number)
            file.write(struct.pack("q", value))


def missing() -> str:
    """Return what this machine lacks for it, in words; empty where it has everything."""
    if not sys.platform.startswith("linux"):
        return "needs Linux"
    return "" if shutil.which(COMPILER) else f"needs a C compiler («{COMPILER}»)"


def _compile(library: Path) -> None:
    command = [COMPILER, "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60.0, check=False)
    if result.returncode:
        raise RuntimeError(f"{SOURCE.name} does not compile: {' '.join(result.stderr.split())}")
