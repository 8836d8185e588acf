"""Logging: one line per event, to standard error."""

from __future__ import annotations

import logging


def configure(level: str) -> None:
    """Set up logging of this process.

    Args:
        level: the least severe level that is logged, such as `info`. Verbose libraries log warnings and
            errors only.
    """
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)s %(name)s[%(process)d] %(message)s", force=True
    )
    quiet = max(logging.WARNING, logging.getLevelName(level.upper()))
    # flask-limiter would log the id of every user that it refuses.
    for name in ("rq.worker", "rq.queue", "psycopg.pool", "flask-limiter"):
        logging.getLogger(name).setLevel(quiet)
