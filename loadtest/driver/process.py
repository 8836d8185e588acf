"""A process of its own for the load generator."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.pool import Pool


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
