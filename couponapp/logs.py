"""How the processes log: one line an event, to standard error."""

from __future__ import annotations

import logging


def configure(level: str) -> None:
    """Set the least severe level that is logged; libraries that chatter stay one step quieter."""
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)s %(name)s[%(process)d] %(message)s", force=True
    )
    quiet = max(logging.WARNING, logging.getLevelName(level.upper()))
    # flask-limiter would log the id of every user whom it refuses.
    for name in ("rq.worker", "rq.queue", "psycopg.pool", "flask-limiter"):
        logging.getLogger(name).setLevel(quiet)
