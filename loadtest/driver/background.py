"""A thread that works in the background of a block."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def running_in_background(work: Callable[[], object], *, every_s: float) -> Iterator[None]:
    """Call a function repeatedly until the block ends, then wait for the last call to return.

    Args:
        work: the function. An exception ends the thread.
        every_s: pause before each call, in seconds.
    """
    over = threading.Event()

    def run() -> None:
        while not over.wait(every_s):
            work()

    thread = threading.Thread(target=run, name="background", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
