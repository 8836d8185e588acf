"""Counters of the rate limits: all limits of a request are checked before any of them is counted.

The counters that all processes share lie in Redis. What many requests ask at the same moment goes
there in one script call: a request costs at most one round trip, a crowd far fewer (measured in
docs/decisions/0012). While Redis does not answer, or answers slowly, the process counts for
itself; a thread finds out when Redis is back, so no request pays for trying.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from limits import RateLimitItem, RateLimitItemPerSecond
from redis import Redis, RedisError
from redis import TimeoutError as RedisTimeoutError
from redis.commands.core import Script

from couponapp import metrics
from couponapp.storage.redis import HASH_TAG

log = logging.getLogger(__name__)

_PREFIX = f"{HASH_TAG}:limit"
MAX_BATCH = 200
# A caller gives up after this many time-outs: connecting and asking may take one each. At the 50 ms
# of couponapp.guards.rate_limits, the first request after a failure costs less than 100 ms.
PATIENCE = 1.8
PROBE_EVERY_S = 1.0
# So many answers in a row, each slower than this beyond the process's own delay, are as good as
# none: counting in the process costs less than 10 ms.
SLOW_S = 0.01
SLOW_IN_A_ROW = 10
# A time-out that comes so much later than it should, as a share of it, is this process's own delay.
# So many of them in a row are forgiven.
LATE = 0.2
MAX_LATE = 1

# How often counters whose window has ended are thrown away, in seconds.
SWEEP_EVERY_S = 10.0

_PROBE_LIMIT = RateLimitItemPerSecond(1_000_000)

# KEYS: the counters of one request after the other. ARGV: for each request the number of its
# counters, and for each of those its amount and its window in milliseconds.
# Returns, as one text, for each request the index of the limit that refuses (0 for none), then
# count and time left of each counter.
_SCRIPT = """
local answer = {}
local key, arg = 0, 1
while arg <= #ARGV do
    local n = tonumber(ARGV[arg])
    local counts, left, refused = {}, {}, 0
    for i = 1, n do
        counts[i] = tonumber(redis.call('GET', KEYS[key + i]) or '0')
        left[i] = redis.call('PTTL', KEYS[key + i])
        if refused == 0 and counts[i] >= tonumber(ARGV[arg + 2 * i - 1]) then refused = i end
    end
    answer[#answer + 1] = refused
    for i = 1, n do
        if refused == 0 then
            counts[i] = redis.call('INCR', KEYS[key + i])
            if left[i] < 0 then
                left[i] = tonumber(ARGV[arg + 2 * i])
                redis.call('PEXPIRE', KEYS[key + i], left[i])
            end
        end
        answer[#answer + 1] = counts[i]
        answer[#answer + 1] = left[i]
    end
    key = key + n
    arg = arg + 1 + 2 * n
end
return table.concat(answer, ' ')
"""


@dataclass(frozen=True, slots=True)
class Hit:
    """One limit that a request must pass.

    Attributes:
        key: whose counter it is.
        limit: how many in which time.
        shared: all processes share it, so that one that is alone with its counters takes its part.
    """

    key: str
    limit: RateLimitItem
    shared: bool = False


@dataclass(frozen=True, slots=True)
class RateLimitStatus:
    """How a request stands with the limit that refuses it, or with its first one.

    Attributes:
        refused: nothing was counted.
        limit: what the window allows.
        remaining: what is left of it.
        reset_s: seconds until the window ends.
    """

    refused: bool
    limit: int
    remaining: int
    reset_s: int


@dataclass(eq=False, slots=True)
class _Question:
    """What one request asks. The latch opens when there is an answer, or when there will be none."""

    asked: Sequence[Hit]
    latch: threading.Lock = field(default_factory=threading.Lock)
    answer: RateLimitStatus | None = None

    def __post_init__(self) -> None:
        self.latch.acquire()


class SharedCounters:
    """Counters in Redis, asked by one thread on behalf of all requests of the process."""

    def __init__(
        self,
        connect: Callable[[], Redis],
        *,
        timeout_s: float,
        name: str = "limits",
        probe_s: float = PROBE_EVERY_S,
    ) -> None:
        """Connect nowhere yet: the thread begins with the first request, so after gunicorn's fork.

        Args:
            connect: makes the client, which bounds every wait; called in the thread.
            timeout_s: that bound, in seconds.
            name: for logs and metrics.
            probe_s: how often to try whether Redis is back, in seconds.
        """
        self._asker = _Asker(connect, timeout_s)
        self._patience_s = PATIENCE * timeout_s
        self._name = name
        self._probe_s = probe_s
        self._questions: queue.SimpleQueue[_Question] = queue.SimpleQueue()
        self._away = False
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def count(self, asked: Sequence[Hit]) -> RateLimitStatus | None:
        """Count one for each of these limits, or none where one of them refuses.

        Args:
            asked: the limits; the first that refuses is the one that is told.

        Returns:
            How the request stands; None where Redis does not say so in time.
        """
        if self._away:
            return None
        if self._thread is None:
            self._start()
        question = _Question(asked)
        self._questions.put(question)
        question.latch.acquire(timeout=self._patience_s)
        return question.answer

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
                self._asker.ask(batch)
            except Exception as error:  # whatever it is, nobody may wait for a thread that is gone
                self._lose(error)
            finally:
                for question in batch:
                    question.latch.release()
            if self._away:
                self._wait_until_back()

    def _next_batch(self) -> list[_Question]:
        batch = [self._questions.get()]
        time.sleep(0)  # lets those ask who are about to
        while len(batch) < MAX_BATCH:
            try:
                batch.append(self._questions.get_nowait())
            except queue.Empty:
                break
        return batch

    def _lose(self, error: Exception) -> None:
        self._away = True
        if not isinstance(error, RedisError | OSError):
            log.error("%s: asking Redis failed", self._name, exc_info=error)
        log.warning("%s: Redis does not answer (%s); each process counts for itself", self._name, error)
        metrics.LIMITS_SHARED.labels(self._name).set(0)

    def _wait_until_back(self) -> None:
        while self._away:
            self._release_all()
            threading.Event().wait(self._probe_s)
            self._away = not self._asker.is_back()
        self._release_all()
        log.warning("%s: Redis answers again; all processes count together", self._name)
        metrics.LIMITS_SHARED.labels(self._name).set(1)

    def _release_all(self) -> None:
        # Who has asked in the moment of the failure goes on at once.
        while not self._questions.empty():
            self._questions.get().latch.release()


class _Asker:
    """Asks Redis; tells answers that are too late or too slow from a process that is itself too busy."""

    def __init__(self, connect: Callable[[], Redis], timeout_s: float) -> None:
        self._connect = connect
        self._timeout_s = timeout_s
        self._script: Script | None = None
        self._slow = 0
        self._late = 0

    def ask(self, batch: Sequence[_Question]) -> None:
        """Answer the questions, or leave them unanswered where this process has stalled meanwhile.

        Raises:
            redis.RedisError: Redis does not answer.
            OSError: likewise.
            TimeoutError: it answers too slowly, again and again.
        """
        delay_s = _own_delay_s()
        began_s = time.perf_counter()
        try:
            said = self._run_script(batch)
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
        for question in batch:
            end = at + 1 + 2 * len(question.asked)
            question.answer = _standing(question.asked, [one.limit.amount for one in question.asked], said[at:end])
            at = end

    def _run_script(self, batch: Sequence[_Question]) -> list[int]:
        if self._script is None:
            self._script = self._connect().register_script(_SCRIPT)
        keys = [f"{_PREFIX}:{_name(one)}" for question in batch for one in question.asked]
        numbers: list[int] = []
        for question in batch:
            numbers.append(len(question.asked))
            for one in question.asked:
                numbers += (one.limit.amount, one.limit.get_expiry() * 1000)
        return [int(word) for word in self._script(keys, numbers).split()]

    def is_back(self) -> bool:
        """Redis counts, and is quick."""
        probe = _Question([Hit("probe", _PROBE_LIMIT)])
        self._slow, self._late = SLOW_IN_A_ROW - 1, MAX_LATE
        try:
            # Not a ping: a replica would answer that, and count nothing.
            self.ask([probe])
        except Exception as error:  # as in SharedCounters._run
            log.debug("limits: Redis is still away: %s", error)
        return probe.answer is not None


def _own_delay_s() -> float:
    """How long this process takes to come back to a thread that waits for nothing, in seconds."""
    began_s = time.perf_counter()
    time.sleep(0)
    return time.perf_counter() - began_s


class MemoryCounters:
    """Counters of this process alone, which takes its part of what all processes share."""

    def __init__(self, processes: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Start at zero.

        Args:
            processes: into how many parts a shared limit falls.
            clock: monotonic, in seconds.
        """
        self._processes = processes
        self._clock = clock
        self._windows: dict[str, Window] = {}
        self._sweep_s = clock() + SWEEP_EVERY_S
        self._lock = threading.Lock()

    def count(self, asked: Sequence[Hit]) -> RateLimitStatus:
        """Count one for each of these limits, or none where one of them refuses."""
        amounts = [max(1, one.limit.amount // self._processes) if one.shared else one.limit.amount for one in asked]
        with self._lock:
            now_s = self._clock()
            self._sweep(now_s)
            windows = [self._window(one, now_s) for one in asked]
            refused = next((i for i, window in enumerate(windows, 1) if window.count >= amounts[i - 1]), 0)
            said = [refused]
            for one, window in zip(asked, windows, strict=True):
                if not refused:
                    self._windows.setdefault(_name(one), window).count += 1
                said += (window.count, math.ceil(1000 * (window.ends_s - now_s)))
        return _standing(asked, amounts, said)

    def give_back(self, asked: Hit) -> None:
        """Take one back that was counted, because something else refused the request."""
        with self._lock:
            window = self._window(asked, self._clock())
            window.count -= window.count > 0  # its window may have ended meanwhile

    def _window(self, asked: Hit, now_s: float) -> Window:
        window = self._windows.get(_name(asked))
        if window is not None and window.ends_s > now_s:
            return window
        self._windows.pop(_name(asked), None)
        return Window(now_s + asked.limit.get_expiry())  # begins with its first hit, so it is not kept yet

    def _sweep(self, now_s: float) -> None:
        if now_s >= self._sweep_s:
            self._sweep_s = now_s + SWEEP_EVERY_S
            self._windows = {key: window for key, window in self._windows.items() if window.ends_s > now_s}


@dataclass(slots=True)
class Window:
    """Until when hits count together, by the counters' clock, and how many there were."""

    ends_s: float
    count: int = 0


def _name(asked: Hit) -> str:
    return f"{asked.key}:{asked.limit}"


def _standing(asked: Sequence[Hit], amounts: Sequence[int], said: Sequence[int]) -> RateLimitStatus:
    refused = said[0]
    told = max(1, refused)
    amount, count, left_ms = amounts[told - 1], said[2 * told - 1], said[2 * told]
    return RateLimitStatus(refused > 0, amount, max(0, amount - count), max(1, math.ceil(left_ms / 1000)))
