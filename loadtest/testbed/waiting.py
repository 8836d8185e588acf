"""Waiting with a bound."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from couponapp.local.processes import Child

POLL_S = 0.02

T = TypeVar("T")


def wait_until(condition: Callable[[], T | None], otherwise: str, *, timeout_s: float, child: Child | None = None) -> T:
    """Poll a condition until it is true; return its value.

    Args:
        condition: called every 20 ms.
        otherwise: message of the error.
        timeout_s: how long to wait, in seconds.
        child: process without which waiting is pointless.

    Raises:
        RuntimeError: not true in time, or the process has ended.
    """
    give_up_s = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > give_up_s or (child is not None and child.process.poll() is not None):
            raise RuntimeError(otherwise)
        time.sleep(POLL_S)
    return value


def wait_until_ready(child: Child, is_ready: Callable[[], bool], otherwise: str, *, log: Path) -> None:
    """Wait until a server that has just been started is ready; end it where it is not.

    Args:
        child: its main process.
        is_ready: polled.
        otherwise: beginning of the error's message.
        log: what the server writes, which the message contains.

    Raises:
        RuntimeError: it ends, or is not ready in time.
    """
    try:
        wait_until(is_ready, otherwise, timeout_s=30.0, child=child)
    except RuntimeError as error:
        child.end()
        raise RuntimeError(f"{otherwise}; its log: {log.read_text(encoding='utf-8', errors='replace')}") from error
