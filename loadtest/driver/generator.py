"""Sends requests: by a plan (open loop), or as fast as the responses come (closed loop).

In the open loop arrivals are planned ahead and latency counts from the planned moment: a server that
stalls does not slow the plan down, and requests that wait meanwhile are counted. One thread serves
all connections of a loop, so a thousand waiting ones cost nothing. Every request records how late the
loop itself was. The loop wakes on whole milliseconds, so it is up to 1 ms late when idle.
"""

from __future__ import annotations

import heapq
import selectors
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count

from loadtest.driver.http_client import HOST, NO_REPLY, TIMEOUT_S, HttpConnection, Reply
from loadtest.driver.nonblocking_client import NonblockingConnection, resolve

GAVE_UP = "GAVE_UP"
NOT_SENT = "NOT_SENT"
REPLAYED = "REPLAYED"
_PROGRESS_S = 1.0
# A connection that has been idle for longer is not reused: a server may close it at any time, ours
# after 5 s, and a request sent at that moment would be lost.
IDLE_S = 3.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """One planned request.

    Attributes:
        at_s: planned moment, in seconds from the start.
        kind: name in the report.
        request: the bytes to send.
        who: the user, where it matters.
        patience_s: after how many seconds the user closes the connection; the loop's time-out when None.
        key: its `Idempotency-Key`; empty where it has none.
        attempt: 1 for the first, 2 for the first retry, and so on.
    """

    at_s: float
    kind: str
    request: bytes
    who: str = ""
    patience_s: float | None = None
    key: str = ""
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Result:
    """How a request ended.

    Attributes:
        at_s: planned moment, in seconds from the start.
        kind: as planned.
        latency_s: from the planned moment to the complete response, or to giving up.
        status: HTTP status; 0 where no response came.
        code: the response's code, or `REPLAYED` for a repeated response to the same key. Without a response:
            `NO_ANSWER`, `GAVE_UP` (the user's patience ended) or `NOT_SENT` (no connection became free in time).
        who: the user.
        retry_after_s: the `Retry-After` header, where there was one.
        sent_s: when the request left, in seconds from the start; after connecting, where that was needed.
        late_s: how much later than planned the loop took it up. This is the generator's own lateness;
            waiting for a connection is the server's, and counts in the latency only.
        issuance: the code of the issuance that the response showed, where it did.
        attempt: as planned.
        key: as planned.
    """

    at_s: float
    kind: str
    latency_s: float
    status: int
    code: str
    who: str = ""
    retry_after_s: int | None = None
    sent_s: float = 0.0
    late_s: float = 0.0
    issuance: str = ""
    attempt: int = 1
    key: str = ""

    @property
    def answered_s(self) -> float:
        """When the response came, or the user gave up, in seconds from the start."""
        return self.at_s + self.latency_s


Again = Callable[[Arrival, Result], Arrival | None]


def open_loop(
    port: int,
    plan: Sequence[Arrival],
    *,
    clients: int,
    progress: Callable[[int], None] = lambda _: None,
    start_s: float | None = None,
    timeout_s: float = TIMEOUT_S,
    host: str = HOST,
    again: Again = lambda arrival, result: None,
) -> list[Result]:
    """Send every arrival at its planned moment.

    Args:
        port: of the server.
        plan: ordered by time.
        clients: number of connections. With too few, requests leave late, which the latency shows.
        progress: called every second with the number of results so far.
        start_s: when the plan begins, by `time.perf_counter`, which all processes of a machine
            share; now when None.
        timeout_s: how long a client waits for a response, and a request for a connection.
        host: of the server.
        again: returns the user's retry after a result, or None. It must stop at some point.
    """
    loop = _Loop(plan, clients, timeout_s, again, start_s=time.perf_counter() if start_s is None else start_s)
    return loop.run(host, port, progress)


@dataclass(slots=True)
class _Flight:
    """A request that has been assigned to a connection and not answered yet."""

    arrival: Arrival
    late_s: float
    connection: NonblockingConnection
    sent_s: float = 0.0
    done: bool = False


class _Loop:
    def __init__(
        self, plan: Sequence[Arrival], clients: int, timeout_s: float, again: Again, *, start_s: float
    ) -> None:
        self._timeout_s = timeout_s
        self._clients = clients
        self._again = again
        self._start_s = start_s
        self._numbers = count()
        self._due = [(arrival.at_s, next(self._numbers), arrival) for arrival in plan]
        heapq.heapify(self._due)
        self._waiting: deque[tuple[Arrival, float]] = deque()
        self._deadlines: list[tuple[float, int, _Flight]] = []
        self._in_flight: dict[NonblockingConnection, _Flight] = {}
        self._idle: dict[NonblockingConnection, float] = {}  # since when, longest first
        self._results: list[Result] = []

    def run(self, host: str, port: int, progress: Callable[[int], None]) -> list[Result]:
        self._family, self._address = resolve(host, port)
        reported_s = self._now_s()
        with selectors.DefaultSelector() as self._selector:
            while self._due or self._waiting or self._in_flight:
                self._close_idle()
                self._take_up_due()
                self._expire()
                for key, events in self._selector.select(self._pause_s()):
                    self._handle(key.data, events)
                if self._now_s() - reported_s >= _PROGRESS_S:
                    reported_s = self._now_s()
                    progress(len(self._results))
            for connection in self._idle:
                connection.close()
        progress(len(self._results))
        return self._results

    def _now_s(self) -> float:
        return time.perf_counter() - self._start_s

    def _pause_s(self) -> float:
        """Return the seconds until the next arrival or deadline."""
        moments = [heap[0][0] for heap in (self._due, self._deadlines) if heap]
        return min(_PROGRESS_S, max(0.0, min(moments, default=0.0) - self._now_s()))

    def _close_idle(self) -> None:
        while self._idle:
            connection, since_s = next(iter(self._idle.items()))
            if self._now_s() - since_s <= IDLE_S:
                return
            del self._idle[connection]
            self._close(connection)

    def _take_up_due(self) -> None:
        while self._due and self._due[0][0] <= (now_s := self._now_s()):
            at_s, _, arrival = heapq.heappop(self._due)
            self._waiting.append((arrival, now_s - at_s))
        while self._waiting and (self._idle or len(self._in_flight) < self._clients):
            self._send(*self._waiting.popleft())

    def _expire(self) -> None:
        """Give up requests that have waited too long for a response, or for a connection."""
        while self._deadlines and (self._deadlines[0][2].done or self._deadlines[0][0] <= self._now_s()):
            flight = heapq.heappop(self._deadlines)[2]
            if not flight.done:
                self._end(flight, NO_REPLY, GAVE_UP if flight.arrival.patience_s is not None else "")
        while self._waiting:
            arrival, late_s = self._waiting[0]
            patience_s = self._timeout_s if arrival.patience_s is None else min(self._timeout_s, arrival.patience_s)
            if self._now_s() - arrival.at_s <= patience_s:
                return
            self._waiting.popleft()
            self._record(arrival, late_s, NO_REPLY, NOT_SENT)

    def _send(self, arrival: Arrival, late_s: float) -> None:
        is_new = not self._idle
        try:
            connection = NonblockingConnection(self._family, self._address) if is_new else self._idle.popitem()[0]
        except OSError:
            self._record(arrival, late_s, NO_REPLY)
            return
        flight = self._in_flight[connection] = _Flight(arrival, late_s, connection)
        deadline_s = self._now_s() + self._timeout_s
        if arrival.patience_s is not None:
            deadline_s = min(deadline_s, arrival.at_s + arrival.patience_s)
        heapq.heappush(self._deadlines, (deadline_s, next(self._numbers), flight))
        connection.begin(arrival.request)
        if is_new:
            self._selector.register(connection.socket, selectors.EVENT_WRITE, connection)
        else:
            self._write(flight)

    def _handle(self, connection: NonblockingConnection, events: int) -> None:
        flight = self._in_flight.get(connection)
        if flight is None:
            # The server has closed an idle connection, as any server may; no request was lost.
            if self._idle.pop(connection, None) is not None:
                self._close(connection)
        elif events & selectors.EVENT_WRITE:
            self._write(flight)
        else:
            self._read(flight)

    def _write(self, flight: _Flight) -> None:
        try:
            is_sent = flight.connection.write()
            if is_sent:
                flight.sent_s = self._now_s()
            event = selectors.EVENT_READ if is_sent else selectors.EVENT_WRITE
            self._selector.modify(flight.connection.socket, event, flight.connection)
        except OSError:
            self._end(flight, NO_REPLY)

    def _read(self, flight: _Flight) -> None:
        try:
            reply = flight.connection.read()
        except (OSError, ValueError):
            reply = NO_REPLY
        if reply is not None:
            self._end(flight, reply)

    def _end(self, flight: _Flight, reply: Reply, code: str = "") -> None:
        flight.done = True
        del self._in_flight[flight.connection]
        if reply.status and flight.connection.keeps:
            self._idle[flight.connection] = self._now_s()
        else:
            self._close(flight.connection)
        self._record(flight.arrival, flight.late_s, reply, code, sent_s=flight.sent_s)

    def _close(self, connection: NonblockingConnection) -> None:
        self._selector.unregister(connection.socket)
        connection.close()

    def _record(self, arrival: Arrival, late_s: float, reply: Reply, code: str = "", *, sent_s: float = 0.0) -> None:
        result = Result(
            at_s=arrival.at_s,
            kind=arrival.kind,
            latency_s=self._now_s() - arrival.at_s,
            status=reply.status,
            code=code or (REPLAYED if reply.is_replay else reply.code),
            who=arrival.who,
            retry_after_s=reply.retry_after_s,
            sent_s=sent_s,
            late_s=late_s,
            issuance=reply.issuance,
            attempt=arrival.attempt,
            key=arrival.key,
        )
        self._results.append(result)
        if (retry := self._again(arrival, result)) is not None:
            heapq.heappush(self._due, (retry.at_s, next(self._numbers), retry))


def closed_loop(
    port: int, requests: Sequence[bytes], *, clients: int, seconds: float, again: bool = True
) -> tuple[float, float, set[int]]:
    """Let some clients send without a pause; return responses per second, the length in seconds, and the statuses.

    Args:
        port: on loopback.
        requests: taken in turn.
        clients: number of connections, with a thread each.
        seconds: maximum length; each client sends one request at least.
        again: begin with the first request again when all are used up; otherwise end.
    """
    stop_s = time.perf_counter() + seconds
    statuses: set[int] = set()

    def client(number: int) -> int:
        connection, sent = HttpConnection(port), 0
        # At least one each: on a busy machine a short turn can be over before the threads have started.
        while (not sent or time.perf_counter() < stop_s) and (again or number + sent * clients < len(requests)):
            reply = connection.exchange(requests[(number + sent * clients) % len(requests)])
            statuses.add(reply.status)
            sent += 1
        connection.close()
        return sent

    began_s = time.perf_counter()
    with ThreadPoolExecutor(clients) as executor:
        answered = sum(executor.map(client, range(clients)))
    length_s = time.perf_counter() - began_s
    return answered / length_s, length_s, statuses
