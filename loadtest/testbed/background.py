"""A thread that works beside a block."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def running_in_background(work: Callable[[], object], *, every_s: float) -> Iterator[None]:
    """Do something again and again until the block ends, and wait for its last time.

    Args:
        work: what to do. An error ends it.
        every_s: the pause before each time, in seconds.
    """
    over = threading.Event()

    def run() -> None:
        while not over.wait(every_s):
            work()

    thread = threading.Thread(target=run, name="beside", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
