"""What a rate limit counts: hits, and how a request stands after them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from limits import RateLimitItem


@dataclass(frozen=True, slots=True)
class Hit:
    """One limit that a request must pass.

    Attributes:
        key: names the counter.
        limit: how many in which time.
        shared: all processes share it, so a process that counts by itself takes its part.
    """

    key: str
    limit: RateLimitItem
    shared: bool = False

    @property
    def name(self) -> str:
        """The counter's name: another limit on the same key counts anew."""
        return f"{self.key}:{self.limit}"


@dataclass(frozen=True, slots=True)
class RateLimitStatus:
    """How a request stands with the limit that refuses it, or with its first one.

    Attributes:
        refused: the limit is used up; nothing was counted.
        limit: what the window allows.
        remaining: what is left of it.
        reset_s: seconds until the window ends.
    """

    refused: bool
    limit: int
    remaining: int
    reset_s: int


class Counters(Protocol):
    """Counts hits: in Redis, or in this process."""

    def count(self, hits: Sequence[Hit], cost: int = 1) -> RateLimitStatus:
        """Count all hits, or none where a limit refuses.

        Args:
            hits: the limits of one request; the first that refuses is reported, otherwise the first.
            cost: what to add to each counter; 0 looks without counting.
        """


def status_of(amounts: Sequence[int], counted: Sequence[int]) -> RateLimitStatus:
    """Return how a request stands.

    Args:
        amounts: what each limit allows.
        counted: the number of the limit that refuses, from 1, or 0 for none; then for each limit its
            count and the milliseconds left of its window.
    """
    refusing = counted[0]
    number = max(1, refusing)
    amount, count, left_ms = amounts[number - 1], counted[2 * number - 1], counted[2 * number]
    return RateLimitStatus(refusing > 0, amount, max(0, amount - count), max(1, math.ceil(left_ms / 1000)))
