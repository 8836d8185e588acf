"""gunicorn's gevent worker, in which a slow or hostile client holds up nobody but itself.

The stock worker bounds the wait for a request's head and nothing else. A client that announces a
body and does not send it, or does not take its answer, keeps its connection for ever; one that
sends faster than it is served keeps all others waiting. Here every step of a client has a bound in
time and size, the application is called when the request has arrived whole, and when connections
run out, the client that has been waited for longest gives way.
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

# Share of the connections from which on clients give way. The rest is for connections that are
# ending: with none left, gevent would accept no more until one has ended.
ROOM = 0.9
# libev's highest: an idle watcher of this priority does not wait until nothing else is to be done,
# but for one round over all sockets.
_NEXT_ROUND = 2
_FIRST, _LAST = 2, -2
# Between two lines in the log that say that clients give way.
TELL_EVERY_S = 10.0


class Rounds(Protocol):
    """Wants to know how long the event loop is busy at a time."""

    def begin_round(self) -> None:
        """The sockets have been looked at."""

    def end_round(self) -> None:
        """They are about to be looked at again."""


class Listener(StreamServer):  # type: ignore[misc]  # brings no types
    """Takes as many new connections in a round as requests were served in the one before, at least one.

    gunicorn has one taken, so that processes share newcomers evenly. Where kept connections fill the
    rounds, newcomers then wait for ever: 1,000 of them for 1,000 rounds.

    Attributes:
        quota: how many in this round; the worker sets it.
    """

    quota = 1

    @property
    def max_accept(self) -> int:
        """What gevent asks for in each round."""
        return Listener.quota

    @max_accept.setter
    def max_accept(self, number: int) -> None:
        """Gunicorn's own number does not count."""


# Where gunicorn looks for it.
ggevent.StreamServer = Listener


class BodyTooLarge(Exception):
    """The body is longer than any that the application takes."""


# What is refused before the application sees it; the first that fits.
_REFUSALS: tuple[tuple[type[BaseException], int, str], ...] = (
    (TooSlow, 408, "REQUEST_TIMEOUT"),
    (BodyTooLarge, 413, "PAYLOAD_TOO_LARGE"),
    (LimitRequestLine, 414, "URI_TOO_LONG"),
    (LimitRequestHeaders, 431, "INVALID_REQUEST"),
    # The application's fault, not the client's.
    (InvalidResponseHeader, 500, "INTERNAL_ERROR"),
    (InvalidResponseHeaderName, 500, "INTERNAL_ERROR"),
    (ParseException, 400, "INVALID_REQUEST"),
    (BaseException, 500, "INTERNAL_ERROR"),
)


class Worker(ggevent.GeventWorker):  # type: ignore[misc]  # brings no types
    """Bounds what clients may take, and answers what it refuses in the one shape.

    Attributes:
        client_timeout_s: for a request's head, again for its body, and again for taking the
            answer; `gunicorn.conf.py` sets it.
        waiting: connections whose client is waited for, the longest first.
    """

    client_timeout_s = 10.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.waiting: dict[ClientConnection, None] = {}
        self._open = 0
        self._served = 0
        self._told_s = -TELL_EVERY_S

    def tell_rounds(self, to: Rounds) -> None:
        """Tell when a round of the event loop begins and ends, from now on.

        Args:
            to: whom.
        """
        loop = gevent.get_hub().loop
        # First of all that happens once the sockets have been looked at, and last before they are again.
        self._round_watchers = (loop.check(ref=False, priority=_FIRST), loop.prepare(ref=False, priority=_LAST))
        self._round_watchers[0].start(to.begin_round)
        self._round_watchers[1].start(self._end_round, to)

    def _end_round(self, rounds: Rounds) -> None:
        Listener.quota, self._served = max(1, self._served), 0
        rounds.end_round()

    def timeout_ctx(self) -> AbstractContextManager[None]:
        """None around the parser: the connection has a time-out that knows what it waits for."""
        return contextlib.nullcontext()

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve one connection, from its first request to its last.

        Args:
            listener: where it came in.
            client: its socket.
            addr: whose it is.
        """
        self._open += 1
        if self._open > ROOM * self.worker_connections:
            self._make_room()
        idle_s = self.cfg.keepalive or self.client_timeout_s  # 0: only a first request is waited for
        connection = ClientConnection(client, self.waiting, idle_s=idle_s, timeout_s=self.client_timeout_s)
        try:
            super().handle(listener, connection, addr)
        finally:
            connection.mark_served()
            self._open -= 1

    def _make_room(self) -> None:
        if self.waiting:
            next(iter(self.waiting)).give_way()
        if time.monotonic() - self._told_s >= TELL_EVERY_S:
            self._told_s = time.monotonic()
            self.log.warning(
                "%d of %d connections are taken: clients that are waited for give way",
                self._open,
                self.worker_connections,
            )

    def handle_request(self, listener_name: Any, req: Any, sock: ClientConnection, addr: Any) -> None:
        """Call the application once the request has arrived whole.

        Args:
            listener_name: where it came in.
            req: the request; its head has been read.
            sock: the connection.
            addr: whose it is.

        Raises:
            TooSlow: the body has not come in time.
            BodyTooLarge: it is too long.
            gunicorn.http.errors.NoMoreData: the client has left in the middle of it.
        """
        read_body(req, sock)
        sock.mark_served()
        self._served += 1
        super().handle_request(listener_name, req, sock, addr)
        sock.await_request()
        # Reading what has come already does not switch greenlets, nor does writing into a buffer
        # with room: one that sends without a pause would be served alone. Not sleep(0), which comes
        # back fifty times before the loop looks at other sockets.
        gevent.idle(priority=_NEXT_ROUND)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Refuse a request that could not be read, or answer 500 where the application has failed.

        The answer says nothing of what was seen in the request.

        Args:
            req: the request as far as it was understood, or None.
            client: the connection.
            addr: whose it is.
            exc: what is wrong.
        """
        if isinstance(exc, gevent.GreenletExit):  # the process ends, and time is up
            return
        status, code = next((status, code) for kind, status, code in _REFUSALS if isinstance(exc, kind))
        if status == 500:
            self.log.error("Error handling request", exc_info=exc)
        _count(status)
        with contextlib.suppress(OSError):
            client.refuse(_answer(status, code, req))


def read_body(req: Any, connection: ClientConnection) -> None:
    """Put the whole body in place of the one that is still to come.

    Args:
        req: gunicorn's request, whose head has been read.
        connection: where the body comes from.

    Raises:
        TooSlow: it has not come in time.
        BodyTooLarge: it is announced as longer than the application takes, or is.
        gunicorn.http.errors.NoMoreData: the client has left.
    """
    reader = req.body.reader
    announced = reader.length if isinstance(reader, LengthReader) else None  # None: it comes in chunks
    if announced == 0:
        return
    # Not at the top: gunicorn imports this file before gevent has patched what Flask builds on.
    from couponapp.web.inputs import MAX_BODY_BYTES  # noqa: PLC0415

    if announced is not None and announced > MAX_BODY_BYTES:
        raise BodyTooLarge()
    # Asked for here, and not once more by gunicorn when it calls the application.
    connection.await_body(ask=req._expected_100_continue)
    req._expected_100_continue = False
    body = req.body.read(MAX_BODY_BYTES + 1)
    if len(body) > MAX_BODY_BYTES:
        raise BodyTooLarge()
    if announced is not None and len(body) < announced:
        raise NoMoreData()
    req.body = io.BytesIO(body)


def _count(status: int) -> None:
    from couponapp import metrics  # noqa: PLC0415  # likewise

    metrics.REQUESTS.labels("none", str(status)).inc()


def _answer(status: int, code: str, req: Any) -> bytes:
    from werkzeug.datastructures import LanguageAccept  # noqa: PLC0415  # likewise
    from werkzeug.http import parse_accept_header  # noqa: PLC0415  # likewise

    from couponapp.web.responses import LANGUAGES, RESPONSES  # noqa: PLC0415  # likewise

    asked = ",".join(value for name, value in (req.headers if req else ()) if name == "ACCEPT-LANGUAGE")
    language = parse_accept_header(asked, LanguageAccept).best_match(LANGUAGES) or "ko"
    message = getattr(RESPONSES[code], language)
    body = json.dumps({"success": False, "code": code, "message": message, "data": None}, ensure_ascii=False).encode()
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nConnection: close\r\nContent-Type: application/json\r\n"
        f"Content-Language: {language}\r\nVary: Accept-Language\r\nCache-Control: no-store\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
