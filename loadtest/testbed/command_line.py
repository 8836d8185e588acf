"""What the command lines of runs share."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable


def end_on_term() -> None:
    """Treat SIGTERM like Ctrl-C, so that every process that was started is stopped."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("the run was ended"))


def between(least: float, most: float, convert: Callable[[str], float] = int) -> Callable[[str], float]:
    """Return the type of an option that is a number, for `argparse`: both bounds are allowed."""

    def number(text: str) -> float:
        value = convert(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{least} to {most}, not {text}")
        return value

    return number
