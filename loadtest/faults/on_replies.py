"""Work is done but three of ten replies are lost, so the client does not know."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from loadtest.faults.fault import CACHED, Fault, Lost, Promises, Stage, answers, during
from loadtest.faults.stands import RELAY_TO_POSTGRESQL, web_behind_relay
from loadtest.testbed.tcp_proxy import TcpProxy, cuts_nothing

SHARE = 0.3
# Of some hundred replies this share must have been lost, or it was another fault.
LEAST, MOST = 0.2, 0.4
SEED = 5

# The end of PostgreSQL's reply to one round trip, outside of a transaction: ReadyForQuery. It comes
# after the commit (PostgreSQL docs, «Message Formats»).
READY = b"Z\x00\x00\x00\x05I"
# The beginning of its reply to a login: Authentication.
LOGIN = b"R"


def ends_a_statement(data: bytes) -> bool:
    """Whether PostgreSQL has executed a statement, and not only accepted a login."""
    return data.endswith(READY) and not data.startswith(LOGIN)


def begins_an_answer(data: bytes) -> bool:
    """Whether the web server has handled a request."""
    return data.startswith(b"HTTP/1.1 ")


class Lottery:
    """Chooses the replies that are lost: always the same positions in the order of their arrival."""

    def __init__(self, is_reply: Callable[[bytes], bool]) -> None:
        """Start with nothing lost.

        Args:
            is_reply: whether a piece of data shows that something has been done.
        """
        self._is_reply = is_reply
        self._random = random.Random(SEED)
        self._lock = threading.Lock()
        self._replies = self._lost = 0

    def loses(self, data: bytes) -> bool:
        """Whether this piece of data is lost."""
        if not self._is_reply(data):
            return False
        with self._lock:
            lost = self._random.random() < SHARE
            self._replies += 1
            self._lost += lost
        return lost

    @property
    def share(self) -> float:
        """The share of all replies so far that were lost."""
        return self._lost / max(1, self._replies)


@contextmanager
def lost(stage: Stage, is_reply: Callable[[bytes], bool]) -> Iterator[None]:
    """Lose three of ten replies, and their connections with them."""
    lottery, relay = Lottery(is_reply), stage.fixture_as(TcpProxy)
    with during(lambda: setattr(relay, "cuts_at", lottery.loses), lambda: setattr(relay, "cuts_at", cuts_nothing)):
        yield
    if not LEAST < lottery.share < MOST:
        stage.broken.append(f"{lottery.share:.0%} of the replies were lost instead of {SHARE:.0%}")


HALF_READ = answers(200, done=0.5)
RETRIED = Promises(
    "one retry, then 503; the user's retry gets the result",
    answers(201, 503, done=0.75),
    CACHED,
    answers(200, 503, done=0.5),
)
REPEATED = Promises("a retry with the same key gets the first response", answers(201, done=0.5), HALF_READ, HALF_READ)
of_postgresql, of_http = (partial(lost, is_reply=is_reply) for is_reply in (ends_a_statement, begins_an_answer))
FAULTS = (
    Fault("30 % of PostgreSQL's replies lost", of_postgresql, RETRIED, serves=RELAY_TO_POSTGRESQL),
    Fault("30 % of HTTP's replies lost", of_http, REPEATED, Lost.FEW, serves=web_behind_relay),
)
