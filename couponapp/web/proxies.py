"""The client's address behind trusted proxies."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

# Some proxies write the port too: 203.0.113.9:4711, [2001:db8::9]:4711.
_WITH_PORT = re.compile(r"\[(?P<six>[^\]]*)\](?::[0-9]+)?|(?P<four>[0-9.]+):[0-9]+")


class TrustedProxies:
    """Takes the client's address and scheme from what the trusted proxies have appended.

    Each proxy appends its client's address to `X-Forwarded-For`, and the client may have sent
    anything before that. So the entry that counts is the last but `hops - 1`. Where there are
    fewer, or it is no address, the request keeps the address of the proxy: it can be shared, but
    not chosen. The same rule holds for `X-Forwarded-Proto`. No other header is believed.

    Not werkzeug's `ProxyFix`, which reads the list as one of quoted strings and leaves out empty
    entries: one quotation mark from the client hides the entries after it, and an empty entry
    makes one count that the client has sent.
    """

    def __init__(self, app: WSGIApplication, hops: int) -> None:
        """Stand in front of an application.

        Args:
            app: the application.
            hops: how many proxies there are, at least one.
        """
        self._app = app
        self._hops = hops

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        if address := _address(self._entry(environ.get("HTTP_X_FORWARDED_FOR", ""))):
            environ["REMOTE_ADDR"] = address
        if (scheme := self._entry(environ.get("HTTP_X_FORWARDED_PROTO", "")).lower()) in ("http", "https"):
            environ["wsgi.url_scheme"] = scheme
        return self._app(environ, start_response)

    def _entry(self, header: str) -> str:
        entries = header.split(",")
        return entries[-self._hops].strip() if len(entries) >= self._hops else ""


def _address(entry: str) -> str:
    """Return an IP address in its canonical form, without a port; empty where it is none."""
    if match := _WITH_PORT.fullmatch(entry):
        entry = match["six"] or match["four"] or ""
    try:
        address = ipaddress.ip_address(entry)
    except ValueError:
        return ""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
