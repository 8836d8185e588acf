"""A thread, or a process, that works in the background of a block."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.pool import Pool


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


@contextmanager
def sending_process(task: Callable[..., object]) -> Iterator[Pool]:
    """Start a process for the generator, which must not share an interpreter with anything else.

    Args:
        task: what it will run. Its module is imported before this returns, so the first run starts at once.

    Yields:
        A pool of one process.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pool.apply(callable, (task,))
        yield pool
