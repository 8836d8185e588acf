"""Rate limits: refused at once, never queued. State in Redis; without Redis, in the process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from flask import Flask
from flask_limiter import Limiter
from limits import parse
from redis import Redis

from couponapp.errors import TooManyRequests
from couponapp.guards import strategy
from couponapp.guards.counters import Hit, MemoryCounters, RateLimitStatus, SharedCounters

# A limiter that waits would be the outage again. Connecting and asking may each take this long,
# once per failure: what follows does not ask (couponapp.guards.counters).
REDIS_TIMEOUT_S = 0.05

_parse = lru_cache(maxsize=64)(parse)


@dataclass(frozen=True)
class LimitRates:
    """The numbers, as text such as `5/minute`.

    Attributes:
        per_user: for each user.
        together: for all users.
        per_process: in this process; empty for none.
        per_address: for each network address; empty for none.
    """

    user_rate: str
    global_rate: str
    process_rate: str = ""
    address_rate: str = ""


class RateLimits:
    """Per user, per address, for all together, and for this process: all are passed, or none is counted."""

    def __init__(
        self,
        connect: Callable[[float], Redis],
        *,
        scope: str,
        rates: Callable[[], LimitRates],
        processes: int = 1,
        timeout_s: float = REDIS_TIMEOUT_S,
    ) -> None:
        """Begin with nothing counted in this process. Connects at the first use.

        Args:
            connect: makes a client of the Redis in which the counters lie; takes the most that
                connecting and an answer may each take, in seconds.
            scope: what the counters are named by; equal scopes share them.
            rates: asked at every attempt, so that the numbers can change while running.
            processes: into how many parts the limit of all falls when Redis is away.
            timeout_s: what `connect` is given.
        """
        self._scope = scope
        self._rates = rates
        self._shared = SharedCounters(lambda: connect(timeout_s), timeout_s=timeout_s)
        self._instead = MemoryCounters(processes)
        self._in_process = MemoryCounters(1)
        # Flask-Limiter on an application of its own, asked for its strategy: its hooks, on every
        # route, and its way from a decorator to the strategy take longer than all our checks
        # together (measured in docs/decisions/0012).
        self._limiter = Limiter(key_func=lambda: scope, storage_uri="memory://", strategy=strategy.NAME)
        self._limiter.init_app(Flask("couponapp.limits"))
        all_or_none = self._limiter.limiter
        assert isinstance(all_or_none, strategy.AllOrNone)
        all_or_none.counting = self._count
        self._all_or_none = all_or_none

    def check(self, user_id: str, address: str = "") -> None:
        """Count one attempt of a user. Within a request, which remembers how it stands.

        Args:
            user_id: whose attempt it is.
            address: where it comes from.

        Raises:
            TooManyRequests: a limit refuses it; says when to try again.
        """
        rates = self._rates()
        asked = [Hit(f"{self._scope}:user:{user_id}", _parse(rates.user_rate))]
        if rates.address_rate:
            asked.append(Hit(f"{self._scope}:address:{address}", _parse(rates.address_rate)))
        asked.append(Hit(f"{self._scope}:all", _parse(rates.global_rate), shared=True))
        in_process = Hit(self._scope, _parse(rates.process_rate)) if rates.process_rate else None
        if in_process and (full := self._in_process.count([in_process])).refused:
            raise TooManyRequests(full.reset_s)
        standing = self._all_or_none.pass_all(asked)
        if standing.refused:
            if in_process:
                # Refused elsewhere: what this process allows everybody is not used up by it.
                self._in_process.give_back(in_process)
            raise TooManyRequests(standing.reset_s)

    def _count(self, asked: Sequence[Hit]) -> RateLimitStatus:
        return self._shared.count(asked) or self._instead.count(asked)


def headers_of(standing: RateLimitStatus) -> dict[str, str]:
    """The `RateLimit-*` headers of the IETF's draft (draft-ietf-httpapi-ratelimit-headers-07)."""
    return {
        "RateLimit-Limit": str(standing.limit),
        "RateLimit-Remaining": str(standing.remaining),
        "RateLimit-Reset": str(standing.reset_s),
    }
