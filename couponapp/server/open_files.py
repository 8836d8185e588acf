"""The limit of open files (`ulimit -n`), and how many connections it leaves room for."""

from __future__ import annotations

import contextlib
import resource

from couponapp.errors import ConfigurationError

FEWEST_CONNECTIONS = 50


def connections(wanted: int, *, others: int) -> int:
    """Raise this process's limit as far as it needs and may; returns how many connections fit.

    A process without a file left can neither accept a client nor tell it so.

    Args:
        wanted: connections of clients.
        others: files besides.

    Raises:
        couponapp.errors.ConfigurationError: the system allows too few.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + others
    if not _covers(soft, needed):
        with contextlib.suppress(ValueError, OSError):  # macOS may allow less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed if _covers(hard, needed) else hard, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if not _covers(soft, others + FEWEST_CONNECTIONS):
        raise ConfigurationError(f"ulimit -n is {soft}: the web server needs {others + FEWEST_CONNECTIONS} or more")
    return wanted if _covers(soft, needed) else soft - others


def _covers(limit: int, number: int) -> bool:
    return limit == resource.RLIM_INFINITY or limit >= number
