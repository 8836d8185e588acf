"""The limit of open files (`ulimit -n`), and how many connections fit into it."""

from __future__ import annotations

import contextlib
import resource

from couponapp.errors import ConfigurationError

FEWEST_CONNECTIONS = 50


def connections(wanted: int, *, others: int) -> int:
    """Raise this process's limit as far as needed and allowed; return how many connections fit.

    A process that has reached its limit can neither accept a client nor answer it.

    Args:
        wanted: the number of client connections to make room for.
        others: the number of other open files.

    Raises:
        couponapp.errors.ConfigurationError: the system allows fewer than `FEWEST_CONNECTIONS`.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + others
    if not _covers(soft, needed):
        with contextlib.suppress(ValueError, OSError):  # macOS may allow less than it reports
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed if _covers(hard, needed) else hard, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if not _covers(soft, others + FEWEST_CONNECTIONS):
        raise ConfigurationError(f"ulimit -n is {soft}: the web server needs {others + FEWEST_CONNECTIONS} or more")
    return wanted if _covers(soft, needed) else soft - others


def _covers(limit: int, number: int) -> bool:
    return limit == resource.RLIM_INFINITY or limit >= number
