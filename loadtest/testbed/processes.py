"""The processes of a server, and ways to stop them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

import psutil

from couponapp.local.processes import Child

# By role; found anew at each call, because processes are replaced.
Processes = Mapping[str, Callable[[], Iterator[psutil.Process]]]


def family(child: Child | None) -> Iterator[psutil.Process]:
    """Yield a server's main process, then its descendants as they are when the caller asks for them.

    A caller that stops the main process before it asks for the next one misses no new descendant.

    Args:
        child: the server; yields nothing where it is None or has ended.
    """
    with suppress(psutil.NoSuchProcess):
        if child is not None:
            parent = psutil.Process(child.process.pid)
            yield parent
            yield from parent.children(recursive=True)


def suspend(child: Child | None) -> None:
    """Stop all processes of a server (SIGSTOP); the kernel still accepts connections for it."""
    for process in family(child):
        process.suspend()


def resume(child: Child | None) -> None:
    """Let all processes of a server continue (SIGCONT)."""
    for process in family(child):
        with suppress(psutil.NoSuchProcess):
            process.resume()


@contextmanager
def suspended(child: Child | None) -> Iterator[None]:
    """Stop all processes of a server until the block ends."""
    suspend(child)
    try:
        yield
    finally:
        resume(child)


def kill(child: Child | None) -> None:
    """Kill all processes of a server (SIGKILL), and wait until the main one has ended."""
    for process in list(family(child)):  # a dead parent no longer has children
        with suppress(psutil.NoSuchProcess):
            process.kill()
    if child is not None:
        child.process.wait(10)
