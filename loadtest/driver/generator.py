"""Sends requests: by a plan (open loop), or as fast as the answers come (closed loop).

In the open loop the times of arrival are planned ahead and latency counts from the planned moment:
a server that stalls does not slow the plan down, and what waits meanwhile is not forgotten. One
thread serves all connections of a loop, so a thousand that wait cost nothing; its own lateness is
measured with every request. It wakes on whole milliseconds, so an idle loop is up to 1 ms late.
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

from loadtest.driver.http_client import HOST, TIMEOUT_S, Connection, Reply
from loadtest.driver.nonblocking_client import NonblockingConnection, resolve

GAVE_UP = "GAVE_UP"
NOT_SENT = "NOT_SENT"
REPLAYED = "REPLAYED"
_PROGRESS_S = 1.0
# A connection that has lain idle for so long is not used again: a server lets go of it some time, ours
# after 5 s, and a request that is on its way just then is lost.
IDLE_S = 3.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """One planned request.

    Attributes:
        at_s: when, in seconds from the start.
        kind: what it is called in the report.
        request: the bytes to send.
        who: the user who asks, where it matters.
        patience_s: after how many seconds the user closes the connection; as long as the loop's
            time-out when left out.
        key: the `Idempotency-Key` in it, where there is one.
        attempt: 1 for the first, 2 for the same click once more, and so on.
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
    """What became of a request; times in seconds, latency from the planned moment.

    Attributes:
        at_s: the planned moment, from the start.
        kind: as planned.
        latency_s: from the planned moment to the whole answer, or to giving up.
        status: of HTTP; 0 where no answer came.
        code: the answer's, but `REPLAYED` for what the same key got before; `NO_ANSWER`, `GAVE_UP` (the
            user's patience ended) or `NOT_SENT` (no connection became free in time) where there was none.
        who: the user who asked.
        retry_after_s: what the answer said, where it did.
        sent_s: when the request left, from the start; a connection to be made comes first.
        late_s: how much later than planned the loop took it up. This is the generator's own
            lateness; waiting for a connection is the server's and counts in the latency only.
        issuance: the code of the coupon that the answer gave or showed, where it did.
        attempt: as planned.
        key: likewise.
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
        """When it was answered, or given up, in seconds from the start."""
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
    """Send every arrival at its time.

    Args:
        port: of the server.
        plan: in the order of time.
        clients: connections; with too few of them requests leave late, which the latency shows.
        progress: told every second how many have been answered.
        start_s: when the plan begins, by `time.perf_counter`, which all processes of a machine
            share; now when left out.
        timeout_s: how long a client waits for an answer, and a request for a connection.
        host: of the server.
        again: what the user does about a result: another arrival, or nothing. It must come to an
            end by itself.
    """
    loop = _Loop(plan, clients, timeout_s, again, start_s=time.perf_counter() if start_s is None else start_s)
    return loop.run(host, port, progress)


@dataclass(slots=True)
class _Flight:
    """A request under way."""

    arrival: Arrival
    late_s: float
    wire: NonblockingConnection
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
        self._give_up: list[tuple[float, int, _Flight]] = []
        self._under_way: dict[NonblockingConnection, _Flight] = {}
        self._idle: dict[NonblockingConnection, float] = {}  # and since when, the longest first
        self._results: list[Result] = []

    def run(self, host: str, port: int, progress: Callable[[int], None]) -> list[Result]:
        self._family, self._address = resolve(host, port)
        told_s = self._now_s()
        with selectors.DefaultSelector() as self._selector:
            while self._due or self._waiting or self._under_way:
                self._let_go_of_what_lies_idle()
                self._take_up_what_is_due()
                self._end_what_waits_too_long()
                for key, events in self._selector.select(self._pause_s()):
                    self._serve(key.data, events)
                if self._now_s() - told_s >= _PROGRESS_S:
                    told_s = self._now_s()
                    progress(len(self._results))
            for wire in self._idle:
                wire.close()
        progress(len(self._results))
        return self._results

    def _now_s(self) -> float:
        return time.perf_counter() - self._start_s

    def _pause_s(self) -> float:
        """Until the next thing that comes by the clock."""
        moments = [heap[0][0] for heap in (self._due, self._give_up) if heap]
        return min(_PROGRESS_S, max(0.0, min(moments, default=0.0) - self._now_s()))

    def _take_up_what_is_due(self) -> None:
        while self._due and self._due[0][0] <= (now_s := self._now_s()):
            at_s, _, arrival = heapq.heappop(self._due)
            self._waiting.append((arrival, now_s - at_s))
        while self._waiting and (self._idle or len(self._under_way) < self._clients):
            self._send(*self._waiting.popleft())

    def _let_go_of_what_lies_idle(self) -> None:
        while self._idle:
            wire, since_s = next(iter(self._idle.items()))
            if self._now_s() - since_s <= IDLE_S:
                return
            del self._idle[wire]
            self._drop(wire)

    def _send(self, arrival: Arrival, late_s: float) -> None:
        try:
            wire, is_new = (
                (self._idle.popitem()[0], False)
                if self._idle
                else (NonblockingConnection(self._family, self._address), True)
            )
        except OSError:
            self._tell(arrival, late_s, Reply(0, b""))
            return
        flight = self._under_way[wire] = _Flight(arrival, late_s, wire)
        until_s = self._now_s() + self._timeout_s
        if arrival.patience_s is not None:
            until_s = min(until_s, arrival.at_s + arrival.patience_s)
        heapq.heappush(self._give_up, (until_s, next(self._numbers), flight))
        wire.begin(arrival.request)
        if is_new:
            self._selector.register(wire.socket, selectors.EVENT_WRITE, wire)
        else:
            self._write(wire, flight)

    def _serve(self, wire: NonblockingConnection, events: int) -> None:
        flight = self._under_way.get(wire)
        if flight is None:
            # The server has let go of it while it lay idle, as any server may; nothing was lost.
            if wire in self._idle:
                del self._idle[wire]
                self._drop(wire)
        elif events & selectors.EVENT_WRITE:
            self._write(wire, flight)
        else:
            self._read(wire, flight)

    def _write(self, wire: NonblockingConnection, flight: _Flight) -> None:
        try:
            if wire.write():
                flight.sent_s = self._now_s()
                self._selector.modify(wire.socket, selectors.EVENT_READ, wire)
            else:
                self._selector.modify(wire.socket, selectors.EVENT_WRITE, wire)
        except OSError:
            self._end(flight, Reply(0, b""))

    def _read(self, wire: NonblockingConnection, flight: _Flight) -> None:
        try:
            reply = wire.read()
        except (OSError, ValueError):
            reply = Reply(0, b"")
        if reply is not None:
            self._end(flight, reply)

    def _end_what_waits_too_long(self) -> None:
        while self._give_up and (self._give_up[0][2].done or self._give_up[0][0] <= self._now_s()):
            flight = heapq.heappop(self._give_up)[2]
            if not flight.done:
                self._end(flight, Reply(0, b""), GAVE_UP if flight.arrival.patience_s is not None else "")
        while self._waiting and self._now_s() - self._waiting[0][0].at_s > self._patience_s(self._waiting[0][0]):
            self._tell(*self._waiting.popleft(), Reply(0, b""), NOT_SENT)

    def _patience_s(self, arrival: Arrival) -> float:
        return self._timeout_s if arrival.patience_s is None else min(self._timeout_s, arrival.patience_s)

    def _end(self, flight: _Flight, reply: Reply, code: str = "") -> None:
        flight.done = True
        del self._under_way[flight.wire]
        if reply.status and flight.wire.keeps:
            self._idle[flight.wire] = self._now_s()
        else:
            self._drop(flight.wire)
        self._tell(flight.arrival, flight.late_s, reply, code, sent_s=flight.sent_s)

    def _drop(self, wire: NonblockingConnection) -> None:
        self._selector.unregister(wire.socket)
        wire.close()

    def _tell(self, arrival: Arrival, late_s: float, reply: Reply, code: str = "", *, sent_s: float = 0.0) -> None:
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
        if (following := self._again(arrival, result)) is not None:
            heapq.heappush(self._due, (following.at_s, next(self._numbers), following))


def closed_loop(
    port: int, requests: Sequence[bytes], *, clients: int, seconds: float, again: bool = True
) -> tuple[float, set[int]]:
    """Answers per second, and the statuses seen, with so many clients that never pause.

    Args:
        port: on loopback.
        requests: taken in turn.
        clients: connections.
        seconds: for how long, at most.
        again: when all are used up, begin with the first again; otherwise end.
    """
    stop_s = time.perf_counter() + seconds
    statuses: set[int] = set()

    def client(number: int) -> int:
        connection, count = Connection(port), 0
        while time.perf_counter() < stop_s and (again or number + count * clients < len(requests)):
            reply = connection.exchange(requests[(number + count * clients) % len(requests)])
            statuses.add(reply.status)
            count += 1
        connection.close()
        return count

    began_s = time.perf_counter()
    with ThreadPoolExecutor(clients) as executor:
        answered = sum(executor.map(client, range(clients)))
    return answered / (time.perf_counter() - began_s), statuses
