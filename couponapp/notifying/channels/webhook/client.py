"""HTTP POST with libcurl: a kept connection, checked addresses, and bounds on time and size.

libcurl speaks HTTP and TLS and bounds the whole transfer. Done here is what it does not do: it connects
to any address, takes a head that is cut off for a whole one, and looks for surplus bytes on a kept
connection only once a second (docs/decisions/0022).
"""

from __future__ import annotations

import select
import socket
import ssl
from dataclasses import dataclass

import pycurl

from couponapp.errors import ChannelFailed
from couponapp.notifying.channels.webhook.addresses import is_public

MAX_HEAD = 16_384  # bytes, interim answers and trailers included
MAX_BODY = 65_536  # bytes


@dataclass(frozen=True)
class Answer:
    """An HTTP answer.

    Attributes:
        status: its status code.
        retry_after_s: seconds that `Retry-After` asks for; None without one, or for 0.
    """

    status: int
    retry_after_s: float | None


class Client:
    """Posts to one URL. For one thread at a time."""

    def __init__(self, url: str, *, timeout_s: float, private: bool) -> None:
        """Open no connection yet.

        Args:
            url: `http` or `https`.
            timeout_s: maximum duration of one POST, in seconds: name look-up, connecting, sending
                and the whole answer together.
            private: connect to addresses that are not public, too.
        """
        self._url = url
        self._timeout_ms = max(1, round(1000 * timeout_s))
        self._private = private
        self._refused_address = ""
        self._head_left = self._body_left = 0
        self._head_is_whole = False
        self._curl = self._new_curl()

    def _new_curl(self) -> pycurl.Curl:
        trusted = ssl.get_default_verify_paths()
        curl = pycurl.Curl()
        for option, value in (
            (pycurl.URL, self._url),
            (pycurl.POST, True),
            (pycurl.PATH_AS_IS, True),
            (pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1),
            (pycurl.TIMEOUT_MS, self._timeout_ms),
            (pycurl.NOSIGNAL, True),  # time-outs without SIGALRM, which would reach the main thread
            (pycurl.PROXY, ""),  # ignores the environment's proxies, which would connect to unchecked addresses
            (pycurl.CAINFO, trusted.cafile),  # libcurl's default is a path on the machine that built the wheel
            (pycurl.CAPATH, trusted.capath),
            (pycurl.OPENSOCKETFUNCTION, self._open_socket),
            (pycurl.HEADERFUNCTION, self._read_head),
            (pycurl.WRITEFUNCTION, self._read_body),
        ):
            curl.setopt(option, value)
        return curl

    def post(self, headers: list[str], body: bytes) -> Answer:
        """Post once and read the answer; its body is discarded.

        A body of more than `MAX_BODY` bytes is not read to its end. The status counts all the same.

        Args:
            headers: lines such as `Content-Type: application/json`.
            body: bytes to send.

        Raises:
            ChannelFailed: no whole answer came in time, or the address is not public.
        """
        if _has_unread_bytes(self._curl):
            self._curl.close()
            self._curl = self._new_curl()
        self._refused_address, self._head_is_whole = "", False
        self._head_left, self._body_left = MAX_HEAD, MAX_BODY
        self._curl.setopt(pycurl.HTTPHEADER, headers)
        self._curl.setopt(pycurl.POSTFIELDS, body)
        try:
            self._curl.perform()
        except pycurl.error as error:
            if self._body_left >= 0:
                raise ChannelFailed(self._reason(*error.args)) from error
        if not self._head_is_whole:
            raise ChannelFailed("no answer: the head is cut off")
        retry_after_s = self._curl.getinfo(pycurl.RETRY_AFTER)
        return Answer(self._curl.getinfo(pycurl.RESPONSE_CODE), retry_after_s or None)

    def _reason(self, code: int, text: str) -> str:
        if code == pycurl.E_COULDNT_CONNECT and self._refused_address:
            return f"{self._refused_address} is not a public address, and COUPON_WEBHOOK_PRIVATE is not set"
        if self._head_left < 0:
            return f"no answer: a head of more than {MAX_HEAD} bytes"
        if code == pycurl.E_OPERATION_TIMEDOUT:  # libcurl's words depend on its version and on the step
            return f"no answer: timed out after {self._timeout_ms} ms"
        return f"no answer: {text}"

    def _open_socket(self, _: int, address: tuple[int, int, int, tuple[str, int]]) -> socket.socket | int:
        """Open a socket for an address that libcurl is about to connect to.

        The check is made here, after the name look-up, so a name that leads elsewhere later gains nothing.
        """
        family, kind, protocol, where = address
        if not self._private and not is_public(where[0]):
            self._refused_address = where[0]
            return int(pycurl.SOCKET_BAD)
        return socket.socket(family, kind, protocol)

    def _read_head(self, line: bytes) -> int | None:
        """Note whether the head of the last answer, after interim ones, is whole. 0 aborts."""
        self._head_left -= len(line)
        if line.startswith(b"HTTP/"):
            self._head_is_whole = False
        elif line in (b"\r\n", b"\n"):
            self._head_is_whole = True
        return 0 if self._head_left < 0 else None

    def _read_body(self, data: bytes) -> int | None:
        """Discard a part of the body. 0 aborts."""
        self._body_left -= len(data)
        return 0 if self._body_left < 0 else None


def _has_unread_bytes(curl: pycurl.Curl) -> bool:
    """Return whether something arrived on the kept connection since the last answer.

    It is the end of the connection, or surplus bytes that must not be taken for the next answer.
    """
    descriptor = curl.getinfo(pycurl.ACTIVESOCKET)
    if descriptor < 0:
        return False
    waiting = select.poll()  # not select(), which fails from descriptor 1,024 on
    waiting.register(descriptor, select.POLLIN)
    return bool(waiting.poll(0))
