"""gunicorn's gevent worker, in which a slow or hostile client affects only itself.

The stock worker bounds the wait for a request's head and nothing else. A client that announces a body and
does not send it, or does not read its response, keeps its connection for ever; a client that sends
without a pause blocks all others. Here each step of a client is bounded in time and size, the
application is called once the request is complete, and when connections run out, the connection that
has waited longest for its client is evicted.
"""

from __future__ import annotations

import contextlib
import io
import json
import time
from contextlib import AbstractContextManager
from http import HTTPStatus
from typing import Any, Protocol

import gevent
from gevent.server import StreamServer
from gunicorn.http.body import LengthReader
from gunicorn.http.errors import (
    InvalidResponseHeader,
    InvalidResponseHeaderName,
    LimitRequestHeaders,
    LimitRequestLine,
    NoMoreData,
    ParseException,
)
from gunicorn.workers import ggevent

from couponapp.server.client_connection import ClientConnection, TooSlow

# The share of used connections above which waiting ones are evicted. The rest is for connections that are
# closing: with none left, gevent would not accept until one has closed.
EVICTION_SHARE = 0.9
# libev's highest priority: an idle watcher with it runs after one round over all sockets instead of
# waiting until nothing else is left to do.
_NEXT_ROUND = 2
_FIRST, _LAST = 2, -2
# The least time between two log lines about evictions.
LOG_INTERVAL_S = 10.0


class Rounds(Protocol):
    """Measures the rounds of the event loop."""

    def begin_round(self) -> None:
        """Note that the sockets have just been polled."""

    def end_round(self) -> None:
        """Note that the sockets are about to be polled again."""


class Listener(StreamServer):  # type: ignore[misc]  # brings no types
    """Accepts as many new connections in a round as requests were handled in the previous one, at least one.

    gunicorn's listener accepts one per round, so that processes share new connections evenly. If kept
    connections fill the rounds, 1,000 new connections then wait for 1,000 rounds.

    Attributes:
        quota: how many connections to accept in this round; the worker sets it.
    """

    quota = 1

    @property
    def max_accept(self) -> int:
        """The number of connections that gevent accepts in this round."""
        return Listener.quota

    @max_accept.setter
    def max_accept(self, number: int) -> None:
        """Ignore gunicorn's own number."""


# gunicorn's worker takes its listener from there.
ggevent.StreamServer = Listener


class BodyTooLarge(Exception):
    """The body is longer than the application accepts."""


# Status and code of requests that do not reach the application; the first match counts.
_REFUSALS: tuple[tuple[type[BaseException], int, str], ...] = (
    (TooSlow, 408, "REQUEST_TIMEOUT"),
    (BodyTooLarge, 413, "PAYLOAD_TOO_LARGE"),
    (LimitRequestLine, 414, "URI_TOO_LONG"),
    (LimitRequestHeaders, 431, "INVALID_REQUEST"),
    # Errors of the application.
    (InvalidResponseHeader, 500, "INTERNAL_ERROR"),
    (InvalidResponseHeaderName, 500, "INTERNAL_ERROR"),
    (ParseException, 400, "INVALID_REQUEST"),
    (BaseException, 500, "INTERNAL_ERROR"),
)


class Worker(ggevent.GeventWorker):  # type: ignore[misc]  # brings no types
    """Bounds each step of a client, and refuses requests with the API's JSON body.

    Attributes:
        client_timeout_s: the bound of each step of a client, in seconds; `gunicorn.conf.py` sets it.
        waiting: the connections whose client has to act next, those that wait longest first.
    """

    client_timeout_s = 10.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.waiting: dict[ClientConnection, None] = {}
        self._open = 0
        self._handled = 0
        self._logged_s = -LOG_INTERVAL_S

    def report_rounds(self, rounds: Rounds) -> None:
        """Report the beginning and end of each round of the event loop.

        Args:
            rounds: its methods are called in the event loop.
        """
        loop = gevent.get_hub().loop
        # The first callback after the sockets have been polled, and the last before they are polled again.
        self._round_watchers = (loop.check(ref=False, priority=_FIRST), loop.prepare(ref=False, priority=_LAST))
        self._round_watchers[0].start(rounds.begin_round)
        self._round_watchers[1].start(self._end_round, rounds)

    def _end_round(self, rounds: Rounds) -> None:
        Listener.quota, self._handled = max(1, self._handled), 0
        rounds.end_round()

    def timeout_ctx(self) -> AbstractContextManager[None]:
        """Return an empty context: `ClientConnection` has its own timeouts."""
        return contextlib.nullcontext()

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Handle one connection, from its first request to its last.

        Args:
            listener: the listening socket.
            client: the connection's socket.
            addr: the client's address.
        """
        self._open += 1
        if self._open > EVICTION_SHARE * self.worker_connections:
            self._evict_one()
        idle_s = self.cfg.keepalive or self.client_timeout_s  # keepalive 0: one request per connection
        connection = ClientConnection(client, self.waiting, idle_s=idle_s, timeout_s=self.client_timeout_s)
        try:
            super().handle(listener, connection, addr)
        finally:
            connection.mark_served()
            self._open -= 1

    def _evict_one(self) -> None:
        if self.waiting:
            next(iter(self.waiting)).evict()
        if time.monotonic() - self._logged_s >= LOG_INTERVAL_S:
            self._logged_s = time.monotonic()
            self.log.warning(
                "%d of %d connections are in use: those that wait longest for their client are closed",
                self._open,
                self.worker_connections,
            )

    def handle_request(self, listener_name: Any, req: Any, sock: ClientConnection, addr: Any) -> None:
        """Read the body, then call the application.

        Args:
            listener_name: the listening address.
            req: gunicorn's request; its head has been read.
            sock: the connection.
            addr: the client's address.

        Raises:
            TooSlow: the body did not arrive in time.
            BodyTooLarge: the body is too long.
            gunicorn.http.errors.NoMoreData: the client left before its end.
        """
        read_body(req, sock)
        sock.mark_served()
        self._handled += 1
        super().handle_request(listener_name, req, sock, addr)
        sock.await_request()
        # Reading received data does not switch greenlets, nor does writing into a buffer with room: a client
        # that sends without a pause would block all others. Not sleep(0), which returns up to fifty times
        # before the loop polls other sockets.
        gevent.idle(priority=_NEXT_ROUND)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Refuse a request that could not be read, or answer 500 if the application failed.

        The response contains nothing from the request.

        Args:
            req: the request as far as it was parsed, or None.
            client: the connection.
            addr: the client's address.
            exc: the error.
        """
        if isinstance(exc, gevent.GreenletExit):  # the process ends, after its graceful timeout
            return
        status, code = next((status, code) for kind, status, code in _REFUSALS if isinstance(exc, kind))
        if status == 500:
            self.log.error("Error handling request", exc_info=exc)
        _count(status)
        with contextlib.suppress(OSError):
            client.refuse(_response(status, code, req))


def read_body(req: Any, connection: ClientConnection) -> None:
    """Read the whole body and replace the request's stream by it.

    Args:
        req: gunicorn's request; its head has been read.
        connection: the client's connection.

    Raises:
        TooSlow: the body did not arrive in time.
        BodyTooLarge: the body, or its announced length, is longer than the application accepts.
        gunicorn.http.errors.NoMoreData: the client left before its end.
    """
    reader = req.body.reader
    announced = reader.length if isinstance(reader, LengthReader) else None  # None: chunked
    if announced == 0:
        return
    # Not at the top: gunicorn imports this module before gevent has patched the modules that Flask uses.
    from couponapp.web.inputs import MAX_BODY_BYTES  # noqa: PLC0415

    if announced is not None and announced > MAX_BODY_BYTES:
        raise BodyTooLarge()
    # Sent here, so that gunicorn does not send it again when it calls the application.
    connection.await_body(ask=req._expected_100_continue)
    req._expected_100_continue = False
    body = req.body.read(MAX_BODY_BYTES + 1)
    if len(body) > MAX_BODY_BYTES:
        raise BodyTooLarge()
    if announced is not None and len(body) < announced:
        raise NoMoreData()
    req.body = io.BytesIO(body)


def _count(status: int) -> None:
    from couponapp import metrics  # noqa: PLC0415  # as in read_body

    metrics.REQUESTS.labels("none", str(status)).inc()


def _response(status: int, code: str, req: Any) -> bytes:
    from couponapp.web.responses import RESPONSES, preferred_language  # noqa: PLC0415  # as in read_body

    accepted = ",".join(value for name, value in (req.headers if req else ()) if name == "ACCEPT-LANGUAGE")
    language = preferred_language(accepted)
    message = getattr(RESPONSES[code], language)
    body = json.dumps({"success": False, "code": code, "message": message, "data": None}, ensure_ascii=False).encode()
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nConnection: close\r\nContent-Type: application/json\r\n"
        f"Content-Language: {language}\r\nVary: Accept-Language\r\nCache-Control: no-store\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
