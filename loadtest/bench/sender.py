"""The process that sends: one turn at a time, with tokens signed before it begins."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.pool import Pool

from couponapp.auth import tokens
from couponapp.config import settings
from loadtest.driver.generator import closed_loop
from loadtest.driver.http_client import request_bytes

TOKEN_TTL_S = 3600


@dataclass(frozen=True)
class Turn:
    """What is sent in one turn of one variant.

    Attributes:
        port: on loopback.
        method: `GET` or `POST`.
        path: with its leading slash.
        users: who asks, each on a request of its own; after the last one the turn is over, or the
            first one asks again.
        again: which of both.
        clients: connections.
        seconds: for how long, at most.
        secret: with which the service signs.
    """

    port: int
    method: str
    path: str
    users: tuple[str, ...]
    again: bool
    clients: int
    seconds: float
    secret: str


@dataclass(frozen=True)
class Sent:
    """What a turn brought: answers per second, over how many seconds, and their statuses."""

    rate: float
    length_s: float
    statuses: frozenset[int]


@contextmanager
def sender() -> Iterator[Pool]:
    """A process of its own: the generator must not share an interpreter with anything."""
    with multiprocessing.get_context("spawn").Pool(1) as process:
        yield process


def send(turn: Turn) -> Sent:
    """Send one turn's requests, as fast as the answers come."""
    config = settings.load({"COUPON_JWT_SECRET": turn.secret})
    requests = [
        request_bytes(turn.method, turn.path, tokens.sign(config, user, ttl_s=TOKEN_TTL_S)) for user in turn.users
    ]
    began_s = time.perf_counter()
    rate, statuses = closed_loop(turn.port, requests, clients=turn.clients, seconds=turn.seconds, again=turn.again)
    return Sent(rate, time.perf_counter() - began_s, frozenset(statuses))
