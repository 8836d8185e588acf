"""One turn of a variant, as the process that sends runs it."""

from __future__ import annotations

import time
from dataclasses import dataclass

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
        users: each has a request of its own.
        again: begin with the first user again after the last one; otherwise the turn ends.
        clients: number of connections.
        seconds: maximum length.
        secret: signs the service's tokens.
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
    """The result of a turn: responses per second, the length in seconds, and the statuses."""

    rate: float
    length_s: float
    statuses: frozenset[int]


def send(turn: Turn) -> Sent:
    """Sign the tokens of one turn, and send its requests as fast as the responses come."""
    config = settings.load({"COUPON_JWT_SECRET": turn.secret})
    requests = [
        request_bytes(turn.method, turn.path, tokens.sign(config, user, ttl_s=TOKEN_TTL_S)) for user in turn.users
    ]
    began_s = time.perf_counter()
    rate, statuses = closed_loop(turn.port, requests, clients=turn.clients, seconds=turn.seconds, again=turn.again)
    return Sent(rate, time.perf_counter() - began_s, frozenset(statuses))
