"""Behind proxies the client cannot forge its address; variants that read the list otherwise can be fooled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from wsgiref.types import WSGIApplication, WSGIEnvironment

import pytest
from werkzeug.middleware.proxy_fix import ProxyFix

from couponapp.web.proxies import TrustedProxies
from tests.support.forwarded import BEHIND_ONE, BEHIND_TWO, FORGED, PEER, Cases


def addresses(proxies: Callable[[WSGIApplication], WSGIApplication], cases: Cases) -> dict[str, str]:
    """What these proxies make of the cases, without a server."""
    found: dict[str, str] = {}
    for what, (values, _) in cases.items():
        environ: WSGIEnvironment = {"REMOTE_ADDR": PEER, "HTTP_X_FORWARDED_FOR": ",".join(values)}

        def remember(environ: WSGIEnvironment, start_response: Any, what: str = what) -> list[bytes]:
            found[what] = environ["REMOTE_ADDR"]
            return []

        proxies(remember)(environ, lambda *_: lambda _: None)
    return found


def wrong(proxies: Callable[[WSGIApplication], WSGIApplication], cases: Cases) -> set[str]:
    """The cases that these proxies get wrong."""
    return {what for what, address in addresses(proxies, cases).items() if address != cases[what][1]}


def test_the_cases_tell_wrong_variants_from_the_right_one() -> None:
    assert wrong(lambda app: TrustedProxies(app, 1), BEHIND_ONE) == set()
    assert wrong(lambda app: TrustedProxies(app, 2), BEHIND_TWO) == set()
    # One proxy more or less than there are.
    assert "the client sent one" in wrong(lambda app: TrustedProxies(app, 2), BEHIND_ONE)
    assert "the client sent one" in wrong(lambda app: TrustedProxies(app, 1), BEHIND_TWO)
    # None at all.
    assert "the client sent none" in wrong(lambda app: app, BEHIND_ONE)


def test_werkzeugs_way_of_reading_the_list_can_be_forged() -> None:
    """Why `TrustedProxies` exists; when this fails, werkzeug has changed, and it may go."""
    assert "the client sent a quotation mark" in wrong(lambda app: ProxyFix(app, x_for=1), BEHIND_ONE)
    assert addresses(lambda app: ProxyFix(app, x_for=2), BEHIND_TWO)["the first appended nothing"] == FORGED


@pytest.mark.parametrize(
    ("hops", "header", "scheme"),
    [
        (1, "https", "https"),
        (1, "http, https", "https"),
        (1, "https, http", "http"),
        (1, "HTTPS", "https"),
        (1, "https, ftp", "http"),
        (1, "https,", "http"),
        (2, "http, https, http", "https"),
        (2, "https", "http"),
        (1, "", "http"),
    ],
)
def test_the_scheme_is_the_one_that_the_outermost_trusted_proxy_has_appended(
    hops: int, header: str, scheme: str
) -> None:
    environ: WSGIEnvironment = {"HTTP_X_FORWARDED_PROTO": header, "wsgi.url_scheme": "http"}
    TrustedProxies(lambda *_: [], hops)(environ, lambda *_: lambda _: None)
    assert environ["wsgi.url_scheme"] == scheme
