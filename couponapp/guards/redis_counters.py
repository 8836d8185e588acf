"""Counters of the rate limits in Redis, shared by all processes.

One greenlet of each process, the «limits» thread, asks Redis on behalf of all requests: those that
arrive in the same moment share one script call, so a request costs at most one round trip and a burst
far fewer (measured in docs/decisions/0012). The script checks all limits of a request before it counts
any of them. While Redis does not answer, or answers slowly, `count` returns None at once, and the same
thread probes whether Redis is back: no request pays for trying.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from limits import RateLimitItemPerSecond
from redis import Redis, RedisError
from redis import TimeoutError as RedisTimeoutError
from redis.commands.core import Script

from couponapp import metrics
from couponapp.guards.hits import Hit, RateLimitStatus, status_of
from couponapp.storage.redis import HASH_TAG

log = logging.getLogger(__name__)

_PREFIX = f"{HASH_TAG}:limit"
MAX_BATCH = 200
# A request gives up after this many time-outs: connecting and asking may take one each. At the 50 ms
# of couponapp.guards.rate_limits, the first request after a failure waits less than 100 ms.
PATIENCE = 1.8
PROBE_EVERY_S = 1.0
# So many answers in a row, each slower than this beyond the process's own delay, count as an
# outage: counting in the process costs less than 10 ms.
SLOW_S = 0.01
SLOW_IN_A_ROW = 10
# A time-out that comes so much later than it should, as a share of it, is this process's own delay.
# So many of them in a row are forgiven.
LATE = 0.2
MAX_LATE = 1

_PROBE_LIMIT = RateLimitItemPerSecond(1_000_000)

# KEYS: the counters of one request after the other. ARGV: for each request the number of its
# counters, what to add to each, and for each of them its amount and its window in milliseconds.
# Returns, as one text, for each request the index of the limit that refuses (0 for none), then
# count and time left of each counter.
_SCRIPT = """
local answer = {}
local key, arg = 0, 1
while arg <= #ARGV do
    local n, cost = tonumber(ARGV[arg]), tonumber(ARGV[arg + 1])
    local counts, left, refused = {}, {}, 0
    for i = 1, n do
        counts[i] = tonumber(redis.call('GET', KEYS[key + i]) or '0')
        left[i] = redis.call('PTTL', KEYS[key + i])
        if refused == 0 and counts[i] >= tonumber(ARGV[arg + 2 * i]) then refused = i end
    end
    answer[#answer + 1] = refused
    for i = 1, n do
        if refused == 0 and cost > 0 then
            counts[i] = redis.call('INCRBY', KEYS[key + i], cost)
            if left[i] < 0 then
                left[i] = tonumber(ARGV[arg + 1 + 2 * i])
                redis.call('PEXPIRE', KEYS[key + i], left[i])
            end
        end
        answer[#answer + 1] = counts[i]
        answer[#answer + 1] = math.max(left[i], 0)
    end
    key = key + n
    arg = arg + 2 + 2 * n
end
return table.concat(answer, ' ')
"""


@dataclass(eq=False, slots=True)
class _Query:
    """The hits of one request. The latch opens when there is a status, or when there will be none."""

    hits: Sequence[Hit]
    cost: int = 1
    latch: threading.Lock = field(default_factory=threading.Lock)
    status: RateLimitStatus | None = None

    def __post_init__(self) -> None:
        self.latch.acquire()


class RedisCounters:
    """Counters in Redis, asked by one greenlet for all requests of the process."""

    def __init__(
        self,
        connect: Callable[[], Redis],
        *,
        timeout_s: float,
        name: str = "limits",
        probe_s: float = PROBE_EVERY_S,
    ) -> None:
        """Connect nowhere yet: the greenlet starts with the first request, so after gunicorn's fork.

        Args:
            connect: makes the client, which bounds every wait; called in the greenlet.
            timeout_s: that bound, in seconds.
            name: for logs and metrics.
            probe_s: how often to probe whether Redis is back, in seconds.
        """
        self._client = _Client(connect, timeout_s)
        self._patience_s = PATIENCE * timeout_s
        self._name = name
        self._probe_s = probe_s
        self._queries: queue.SimpleQueue[_Query] = queue.SimpleQueue()
        self._away = False
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def count(self, hits: Sequence[Hit], cost: int = 1) -> RateLimitStatus | None:
        """Count all hits, or none where a limit refuses; arguments as in `hits.Counters.count`.

        Returns:
            How the request stands; None where Redis does not answer in time.
        """
        if self._away:
            return None
        if self._thread is None:
            self._start()
        query = _Query(hits, cost)
        self._queries.put(query)
        query.latch.acquire(timeout=self._patience_s)
        return query.status

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                thread.start()
                self._thread = thread

    def _run(self) -> None:
        metrics.LIMITS_SHARED.labels(self._name).set(1)
        while True:
            batch = self._next_batch()
            try:
                self._client.ask(batch)
            except Exception as error:  # whatever it is: no request may wait for a greenlet that has ended
                self._report_outage(error)
            finally:
                for query in batch:
                    query.latch.release()
            if self._away:
                self._wait_until_back()

    def _next_batch(self) -> list[_Query]:
        batch = [self._queries.get()]
        time.sleep(0)  # lets the requests ask that are about to
        while len(batch) < MAX_BATCH:
            try:
                batch.append(self._queries.get_nowait())
            except queue.Empty:
                break
        return batch

    def _report_outage(self, error: Exception) -> None:
        self._away = True
        if not isinstance(error, RedisError | OSError):
            log.error("%s: asking Redis failed", self._name, exc_info=error)
        log.warning("%s: Redis does not answer (%s); each process counts by itself", self._name, error)
        metrics.LIMITS_SHARED.labels(self._name).set(0)

    def _wait_until_back(self) -> None:
        while self._away:
            self._release_all()
            threading.Event().wait(self._probe_s)
            self._away = not self._client.is_back()
        self._release_all()
        log.warning("%s: Redis answers again; all processes count together", self._name)
        metrics.LIMITS_SHARED.labels(self._name).set(1)

    def _release_all(self) -> None:
        # Requests that asked in the moment of the failure go on at once.
        while not self._queries.empty():
            self._queries.get().latch.release()


class _Client:
    """Asks Redis; tells answers that are late or slow from a process that is itself too busy."""

    def __init__(self, connect: Callable[[], Redis], timeout_s: float) -> None:
        self._connect = connect
        self._timeout_s = timeout_s
        self._script: Script | None = None
        self._slow = 0
        self._late = 0

    def ask(self, batch: Sequence[_Query]) -> None:
        """Fill in the statuses, or leave them out where this process has stalled meanwhile.

        Raises:
            redis.RedisError: Redis does not answer.
            OSError: the connection failed below redis-py.
            TimeoutError: it answers too slowly, again and again.
        """
        delay_s = _own_delay_s()
        began_s = time.perf_counter()
        try:
            counted = self._run_script(batch)
        except RedisTimeoutError:
            # A time-out that comes late says more about this process than about Redis.
            in_time = time.perf_counter() - began_s <= (1 + LATE) * self._timeout_s
            self._late = MAX_LATE + 1 if in_time else self._late + 1
            if self._late > MAX_LATE:
                raise
            return
        self._late = 0
        self._slow = self._slow + 1 if time.perf_counter() - began_s - delay_s > SLOW_S else 0
        if self._slow >= SLOW_IN_A_ROW:
            raise TimeoutError(f"{SLOW_IN_A_ROW} answers in a row took longer than {1000 * SLOW_S:.0f} ms")
        at = 0
        for query in batch:
            end = at + 1 + 2 * len(query.hits)
            query.status = status_of([hit.limit.amount for hit in query.hits], counted[at:end])
            at = end

    def _run_script(self, batch: Sequence[_Query]) -> list[int]:
        if self._script is None:
            self._script = self._connect().register_script(_SCRIPT)
        keys = [f"{_PREFIX}:{hit.name}" for query in batch for hit in query.hits]
        numbers: list[int] = []
        for query in batch:
            numbers += (len(query.hits), query.cost)
            for hit in query.hits:
                numbers += (hit.limit.amount, hit.limit.get_expiry() * 1000)
        return [int(word) for word in self._script(keys, numbers).split()]

    def is_back(self) -> bool:
        """Return whether Redis counts, and is quick."""
        probe = _Query([Hit("probe", _PROBE_LIMIT)])
        self._slow, self._late = SLOW_IN_A_ROW - 1, MAX_LATE
        try:
            # Not a ping: a replica would answer that, and count nothing.
            self.ask([probe])
        except Exception as error:  # as in RedisCounters._run
            log.debug("limits: Redis is still away: %s", error)
        return probe.status is not None


def _own_delay_s() -> float:
    """Return how long this process takes to come back to a greenlet that waits for nothing, in seconds."""
    began_s = time.perf_counter()
    time.sleep(0)
    return time.perf_counter() - began_s
