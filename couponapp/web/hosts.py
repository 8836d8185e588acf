"""What every request must be before a view sees it: a known host, a plain path, a form of ours."""

from __future__ import annotations

import re
from functools import lru_cache

from flask import request
from flask_wtf import CSRFProtect
from werkzeug.sansio.utils import get_host

from couponapp.errors import InvalidRequest, NotFound
from couponapp.web.api.views import api
from couponapp.web.probes import probes

_PORT = re.compile(r":[0-9]+\Z")


def check_request(csrf: CSRFProtect, allowed_hosts: tuple[str, ...]) -> None:
    """Refuse what no view should see.

    Args:
        csrf: checks the forms.
        allowed_hosts: names and addresses; one that begins with a dot covers all names below it.

    Raises:
        InvalidRequest: no Host, a host that is not allowed, or a form without its token.
        NotFound: the path begins with two slashes.
    """
    environ, blueprint = request.environ, request.blueprint
    # Werkzeug takes «//metrics» for «/metrics»; a proxy that guards a path may not.
    if environ["PATH_INFO"].startswith("//"):
        raise NotFound()
    # Load balancers ask the probes by address and know no name.
    if blueprint == probes.name:
        return
    host = environ.get("HTTP_HOST")
    if not host:
        raise InvalidRequest("Host: missing")
    # Not `request.trusted_hosts`: Flask has read `request.host` before any hook runs, so setting
    # them here has no effect, and werkzeug's comparison knows no IPv6 address.
    if not _is_allowed(host, allowed_hosts):
        raise InvalidRequest("Host: not one of COUPON_ALLOWED_HOSTS")
    # The API takes no cookie, so no browser can be made to send one. Everything else is protected,
    # whatever may be added.
    if blueprint != api.name:
        csrf.protect(apply_exemptions=True)


@lru_cache(maxsize=256)
def _is_allowed(host: str, allowed_hosts: tuple[str, ...]) -> bool:
    # «http» for both: only the standard ports differ, and no port matters here.
    name = _PORT.sub("", get_host("http", host)).lower()
    return any(_covers(allowed, name) for allowed in allowed_hosts)


def _covers(allowed: str, name: str) -> bool:
    return name == allowed.removeprefix(".") or (allowed.startswith(".") and name.endswith(allowed))
