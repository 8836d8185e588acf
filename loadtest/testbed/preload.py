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
COMPILE_TIMEOUT_S = 60.0
# In the order of the C file's `struct control`.
_FULL, _SLOW_US, _AHEAD_S, _MET = range(4)


class Control:
    """What is the matter, for all processes that were started with it; at first nothing.

    Attributes:
        environ: what the environment of such a process needs.
    """

    def __init__(self, home: Path, *, disk: Path) -> None:
        """Compile the library.

        Args:
            home: an empty place for the library and the control file.
            disk: the directory whose files lie on the disk that can be bad.

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
        """Start a PostgreSQL anew, now and ever after with the library.

        Args:
            postgres: the server; it is up.
            run_dir: where its pid file lies.
        """
        postgres.end()
        postgres.environ |= self.environ
        postgres.start(run_dir)

    def fill_disk(self) -> None:
        """From now on no file can grow."""
        self._put(_FULL, 1)

    def slow_disk(self, delay_s: float) -> None:
        """From now on each write and each flush takes so many seconds longer."""
        self._put(_SLOW_US, round(delay_s * 1_000_000))

    def mend_disk(self) -> None:
        """The disk has room and is quick again; who waits for it does so no longer."""
        self._put(_FULL, 0)
        self._put(_SLOW_US, 0)

    def set_clock(self, ahead_s: int) -> None:
        """From now on the wall clock is so many seconds ahead; negative: behind; 0: right again."""
        self._put(_AHEAD_S, ahead_s)

    @property
    def met(self) -> int:
        """How many calls have met any of this until now."""
        return int(struct.unpack_from("q", self._file.read_bytes(), 8 * _MET)[0])

    def _put(self, number: int, value: int) -> None:
        # Written in place: the processes have this very file in their memory.
        with open(self._file, "r+b", buffering=0) as file:
            file.seek(8 * number)
            file.write(struct.pack("q", value))


def missing() -> str:
    """What this machine lacks for it, in words; nothing where it has all."""
    if not sys.platform.startswith("linux"):
        return "needs Linux"
    return "" if shutil.which(COMPILER) else f"needs a C compiler («{COMPILER}»)"


def _compile(library: Path) -> None:
    command = [COMPILER, "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S, check=False)
    if result.returncode:
        raise RuntimeError(f"{SOURCE.name} does not compile: {' '.join(result.stderr.split())}")
