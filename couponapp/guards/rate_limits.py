"""Rate limits of the issue path: refused at once, never queued. Counted in Redis, without it in the process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from limits import parse
from redis import Redis

from couponapp.errors import TooManyRequests
from couponapp.guards.hits import Hit, RateLimitStatus
from couponapp.guards.memory_counters import MemoryCounters
from couponapp.guards.redis_counters import RedisCounters
from couponapp.guards.strategy import AllOrNone

# The limiter must fail fast. Connecting and asking may each take this long, once per failure:
# requests that follow do not ask (couponapp.guards.redis_counters).
REDIS_TIMEOUT_S = 0.05

_parse = lru_cache(maxsize=64)(parse)


class FallbackCounters:
    """Counts in Redis; while Redis is away, in this process."""

    def __init__(
        self, connect: Callable[[float], Redis], *, processes: int = 1, timeout_s: float = REDIS_TIMEOUT_S
    ) -> None:
        """Start with nothing counted in this process. Connects at the first use.

        Args:
            connect: makes a client of the Redis that holds the counters; gets the bound on connecting
                and on an answer, in seconds.
            processes: into how many parts a shared limit falls while Redis is away.
            timeout_s: what `connect` gets.
        """
        self._redis = RedisCounters(lambda: connect(timeout_s), timeout_s=timeout_s)
        self._memory = MemoryCounters(processes)

    def count(self, hits: Sequence[Hit], cost: int = 1) -> RateLimitStatus:
        """Count all hits, or none where a limit refuses; see `hits.Counters.count`."""
        return self._redis.count(hits, cost) or self._memory.count(hits, cost)


@dataclass(frozen=True)
class LimitRates:
    """The numbers, as text such as `5/minute`.

    Attributes:
        user_rate: for each user.
        global_rate: for all users together.
        process_rate: in this process; empty for none.
        address_rate: for each network address; empty for none.
    """

    user_rate: str
    global_rate: str
    process_rate: str = ""
    address_rate: str = ""


class RateLimits:
    """Limits per user, per address, for all users and for this process: all let pass, or none is counted."""

    def __init__(self, strategy: AllOrNone, *, scope: str, rates: Callable[[], LimitRates]) -> None:
        """Keep the strategy; nothing is counted yet.

        Args:
            strategy: counts all hits of a request, or none.
            scope: the counters' name; equal scopes share them.
            rates: called at every attempt, so that the numbers can change while the service runs.
        """
        self._strategy = strategy
        self._scope = scope
        self._rates = rates
        self._in_process = MemoryCounters(1)

    def hit(self, user_id: str, address: str = "") -> RateLimitStatus:
        """Count one attempt of a user.

        Args:
            user_id: of the caller.
            address: the caller's network address.

        Returns:
            How the attempt stands with the limit of its user.

        Raises:
            TooManyRequests: a limit refuses the attempt; says when to try again.
        """
        rates = self._rates()
        hits = [Hit(f"{self._scope}:user:{user_id}", _parse(rates.user_rate))]
        if rates.address_rate:
            hits.append(Hit(f"{self._scope}:address:{address}", _parse(rates.address_rate)))
        hits.append(Hit(f"{self._scope}:all", _parse(rates.global_rate), shared=True))
        in_process = Hit(self._scope, _parse(rates.process_rate)) if rates.process_rate else None
        if in_process and (full := self._in_process.count([in_process])).refused:
            raise TooManyRequests(full.reset_s)
        status = self._strategy.hit_all(hits)
        if status.refused:
            if in_process:
                # Refused by another limit: what this process allows everybody is not used up by it.
                self._in_process.give_back(in_process)
            raise TooManyRequests(status.reset_s, status.limit)
        return status
