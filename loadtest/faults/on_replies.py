"""What was done is done, but nobody is told: three of ten replies are lost."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from loadtest.faults.fault import Behind, Fault, Lost, Stage, answers
from loadtest.faults.on_postgres import CACHED
from loadtest.testbed.tcp_proxy import passes_all

SHARE = 0.3
# Of some hundred replies so many must have been lost, or the fault was another one.
LEAST, MOST = 0.2, 0.4
SEED = 5

# The end of what PostgreSQL answers to one round trip, outside of a transaction: ReadyForQuery. It
# comes after the commit (PostgreSQL docs, «Message Formats»).
READY = b"Z\x00\x00\x00\x05I"
# With what it answers to a login: Authentication.
LOGIN = b"R"


def ends_a_statement(data: bytes) -> bool:
    """PostgreSQL has done what it was asked, which is more than letting somebody in."""
    return data.endswith(READY) and not data.startswith(LOGIN)


def begins_an_answer(data: bytes) -> bool:
    """The web server has done what it was asked."""
    return data.startswith(b"HTTP/1.1 ")


class Lottery:
    """Which replies are lost: always the same places in the order of their coming."""

    def __init__(self, is_reply: Callable[[bytes], bool]) -> None:
        """Nothing has been lost yet.

        Args:
            is_reply: whether a piece of what comes tells that something has been done.
        """
        self._is_reply = is_reply
        self._random = random.Random(SEED)
        self._lock = threading.Lock()
        self._replies = self._lost = 0

    def loses(self, data: bytes) -> bool:
        """This one is lost."""
        if not self._is_reply(data):
            return False
        with self._lock:
            lost = self._random.random() < SHARE
            self._replies += 1
            self._lost += lost
        return lost

    @property
    def share(self) -> float:
        """Of all replies so far, how many were lost."""
        return self._lost / max(1, self._replies)


@contextmanager
def lost(stage: Stage, is_reply: Callable[[bytes], bool]) -> Iterator[None]:
    """Three of ten replies are lost, and their connections with them."""
    assert stage.relay is not None
    lottery = Lottery(is_reply)
    stage.relay.loses = lottery.loses
    try:
        yield
    finally:
        stage.relay.loses = passes_all
    if not LEAST < lottery.share < MOST:
        stage.broken.append(f"{lottery.share:.0%} of the replies were lost instead of {SHARE:.0%}")


FAULTS = (
    Fault(
        name="30 % of PostgreSQL's replies lost",
        expected="tried once more, then 503; a retry tells what became of it",
        happens=lambda stage: lost(stage, ends_a_statement),
        issue=answers(201, 503, done=0.75),
        look_up=CACHED,
        mine=answers(200, 503, done=0.5),
        behind=Behind.POSTGRESQL,
    ),
    Fault(
        name="30 % of HTTP's replies lost",
        expected="a retry with the same key gets the first answer",
        happens=lambda stage: lost(stage, begins_an_answer),
        issue=answers(201, done=0.5),
        look_up=answers(200, done=0.5),
        mine=answers(200, done=0.5),
        lost=Lost.FEW,
        behind=Behind.WEB,
    ),
)
