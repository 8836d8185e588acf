"""gunicorn's gevent worker, whose own refusals have the one answer shape too."""

from __future__ import annotations

import contextlib
import json
import socket
from typing import Any

from gunicorn.http.errors import LimitRequestHeaders, LimitRequestLine
from gunicorn.workers.ggevent import GeventWorker

# What gunicorn refuses before the application sees it: an address or headers that are too long.
# Everything else that it refuses is no HTTP that can be understood.
_CODES: tuple[tuple[type[Exception], int, str], ...] = (
    (LimitRequestLine, 414, "URI_TOO_LONG"),
    (LimitRequestHeaders, 431, "INVALID_REQUEST"),
)


SWALLOW_TIMEOUT_S = 0.5
MAX_SWALLOWED_BYTES = 256 * 1024


class Worker(GeventWorker):  # type: ignore[misc]  # brings no types
    """Answers malformed requests in JSON, and says nothing of what it has seen in them."""

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """Refuse a request that could not be read, or answer 500 where the application has failed.

        Args:
            req: the request as far as it was understood, or None.
            client: the connection.
            addr: whose it is.
            exc: what is wrong.
        """
        if not type(exc).__module__.startswith("gunicorn.http"):
            self.log.exception("Error handling request")
            status, code = 500, "INTERNAL_ERROR"
        else:
            status, code = next(
                ((status, code) for kind, status, code in _CODES if isinstance(exc, kind)), (400, "INVALID_REQUEST")
            )
        with contextlib.suppress(OSError):
            client.sendall(_answer(status, code))
            _swallow(client)


def _swallow(client: Any) -> None:
    """Read a little of what is still coming: closing over it would reset the answer away."""
    client.shutdown(socket.SHUT_WR)
    client.settimeout(SWALLOW_TIMEOUT_S)
    swallowed = 0
    while swallowed < MAX_SWALLOWED_BYTES and (part := client.recv(65_536)):
        swallowed += len(part)


def _answer(status: int, code: str) -> bytes:
    # Not at the top: gunicorn imports this file before gevent has patched what Flask builds on.
    from couponapp.web.answers import ANSWERS  # noqa: PLC0415

    words = ANSWERS[code].ko  # without headers that could be read there is no language to go by
    body = json.dumps({"success": False, "code": code, "message": words, "data": None}, ensure_ascii=False).encode()
    head = (
        f"HTTP/1.1 {status} Refused\r\nConnection: close\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
