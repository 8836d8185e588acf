"""The service with one of the wrong statements put in the place of ours; `WRONG` names it."""

import os
from functools import partial
from importlib import import_module

from couponapp.issuing.statement import issue_batch
from tests.support.wrong_statements import WRONG_STATEMENTS

_services = import_module("couponapp.services")
_services.issue_batch = partial(issue_batch, statement=WRONG_STATEMENTS[os.environ["WRONG"]])  # type: ignore[attr-defined]

from wsgi import app  # noqa: E402  # after the statement has been put in place

__all__ = ["app"]
