"""Waiting with a bound."""

from __future__ import annotations

import time
from collections.abc import Callable
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
