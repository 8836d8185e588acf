"""A run of a simulated service, in which delays and lost responses are random.

Each request is sent, takes effect at a moment of its own, and is answered; the service reads the
coupon in the order of those moments. Some refusals come from a cache that is up to 0.75 s old, as in
the real service (docs/decisions/0013). `wrong` names a deliberate error of the service.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache

from loadtest.load.answered import Answered
from loadtest.load.history import Operated, check

COUPON_ID = 7
OPENS_S, CLOSES_S = 1.0, 9.0
MEMORY_S = 0.75
HOLD_BACK_S = 0.9


@dataclass(frozen=True)
class Shown:
    """The coupon as it was at a moment."""

    at_s: float
    total: int
    state: str
    holders: frozenset[str]


@dataclass
class Run:
    """The arguments of the checker."""

    total: int
    answers: list[Answered] = field(default_factory=list)
    operated: list[Operated] = field(default_factory=list)
    owners: dict[str, str] = field(default_factory=dict)
    issued_at_s: dict[str, float] = field(default_factory=dict)

    def contradictions(self) -> list[str]:
        return check(
            self.answers,
            self.owners,
            self.total,
            operated=self.operated,
            opens_s=OPENS_S,
            closes_s=CLOSES_S,
            issued_at_s=self.issued_at_s,
        )

    def altered(self, which: Callable[[Answered], bool], **changes: object) -> Run:
        """Return the same run with changes in the first answer for which this holds."""
        at = next(number for number, one in enumerate(self.answers) if which(one))
        answers = [*self.answers]
        answers[at] = replace(answers[at], **changes)  # type: ignore[arg-type]  # the names are the fields'
        return replace(self, answers=answers)


class Simulation:
    """The service; it handles one attempt at a time."""

    def __init__(self, chance: random.Random, total: int, wrong: str) -> None:
        self._chance = chance
        self._wrong = wrong
        self._state, self._total = "open", total
        self._stocked_from_s = 0.0
        self._keys: dict[str, str | None] = {}
        self.owners: dict[str, str] = {}
        self.issued_at_s: dict[str, float] = {}
        self._past = [Shown(-10.0, total, "open", frozenset())]

    def operate(self, done: Operated, at_s: float) -> None:
        if done.what == "restock":
            if len(self.owners) == self._total and self._wrong != "restock not held back":
                self._stocked_from_s = at_s + HOLD_BACK_S
            self._total += done.pieces
        else:
            self._state = {"pause": "paused", "resume": "open", "close": "closed"}[done.what]
        self._remember(at_s)

    def remaining(self, at_s: float) -> int:
        seen = self._memory(at_s)
        return seen.total - len(seen.holders)

    def attempt(self, user: str, key: str | None, at_s: float) -> tuple[str, str | None]:
        """Return the response's code, and that of the issuance that it shows."""
        if at_s < OPENS_S:
            return "NOT_OPEN", None
        return self._known(user, key, at_s) or self._statement(user, key, at_s)

    def _known(self, user: str, key: str | None, at_s: float) -> tuple[str, None] | None:
        seen = self._memory(at_s)
        if key is None and (seen.state == "closed" or at_s >= CLOSES_S):
            return "CLOSED", None
        if key is None and seen.state == "paused":
            return "PAUSED", None
        open_and_gone = seen.state == "open" and at_s < CLOSES_S and len(seen.holders) >= seen.total
        return ("SOLD_OUT", None) if open_and_gone and user not in seen.holders else None

    def _statement(self, user: str, key: str | None, at_s: float) -> tuple[str, str | None]:
        if user in self.owners and self._wrong != "two for one user":
            if self._wrong == "holders get SOLD_OUT" and len(self.owners) >= self._total:
                return "SOLD_OUT", None
            replayed = key is not None and self._keys[user] == key
            shown = self.owners[user] if self._wrong != "another code shown" else f"new-{at_s}"
            return ("REPLAYED" if replayed else "ALREADY_ISSUED"), shown
        if self._state == "closed" or at_s >= CLOSES_S:
            return "CLOSED", None
        if self._state == "paused" and self._wrong != "pause ignored":
            return "PAUSED", None
        left = self._total - len(self.owners)
        if self._wrong == "sold out too early":
            left -= 3
        if (left <= 0 and self._wrong != "more than there are") or at_s < self._stocked_from_s:
            return "SOLD_OUT", None
        code = f"code-{user}-{at_s}"
        if self._wrong != "answers before it is recorded" or self._chance.random() < 0.7:
            self.owners[user], self._keys[user] = code, key
            self.issued_at_s[user] = at_s
        self._remember(at_s)
        return "ISSUED", code

    def _memory(self, at_s: float) -> Shown:
        oldest_s = at_s - self._chance.uniform(0, MEMORY_S if self._wrong != "memory too old" else 3.0)
        return next(shown for shown in reversed(self._past) if shown.at_s <= oldest_s)

    def _remember(self, at_s: float) -> None:
        self._past.append(Shown(at_s, self._total, self._state, frozenset(self.owners)))


@lru_cache(maxsize=512)
def simulated(seed: int, *, wrong: str = "") -> Run:
    """Return a run of 10 seconds; the same seed gives the same run."""
    chance = random.Random(seed)
    total, users = chance.choice([0, 1, 10, 30]), chance.choice([5, 20, 60])
    run, service = Run(total), Simulation(chance, total, wrong)
    steps: list[tuple[float, Callable[[float], None]]] = []
    for operated in _operations(chance):
        run.operated.append(operated)
        at_s = chance.uniform(operated.sent_s, operated.answered_s)
        steps.append((at_s, lambda at_s, operated=operated: service.operate(operated, at_s)))  # type: ignore[misc]
    for _ in range(users * chance.choice([1, 3, 10])):
        steps.append(_request(chance, run, service, f"user-{chance.randrange(users)}"))
    for at_s, do in sorted(steps, key=lambda step: step[0]):
        do(at_s)
    return replace(run, owners=dict(service.owners), issued_at_s=dict(service.issued_at_s))


def _operations(chance: random.Random) -> list[Operated]:
    operated, now_s = [], 2.0
    for what in chance.choice(
        [(), ("restock",), ("pause", "resume"), ("pause", "restock", "resume", "restock", "close")]
    ):
        now_s += chance.uniform(0.1, 1.2)
        began_s, now_s = now_s, now_s + chance.uniform(0.001, 0.1)
        operated.append(Operated(what, began_s, now_s, chance.choice([1, 5, 20]) if what == "restock" else 0))
    return operated


def _request(chance: random.Random, run: Run, service: Simulation, user: str) -> tuple[float, Callable[[float], None]]:
    sent_s = chance.uniform(*chance.choice([(0.5, 10.0), (0.9, 2.0), (2.0, 4.0)]))
    at_s = sent_s + chance.expovariate(20)
    answered_s = at_s + chance.expovariate(20)
    key = chance.choice([None, None, f"key-{user}-1", f"key-{user}-2"])
    case = chance.random()

    def attempt(at_s: float) -> None:
        code, shown = service.attempt(user, key, at_s)
        if case < 0.15:  # executed, perhaps after the client disconnected; the response is lost
            gave_up_s = sent_s + (answered_s - sent_s) * chance.uniform(0.1, 1.0)
            code, shown = chance.choice(["NO_ANSWER", "SERVICE_UNAVAILABLE"]), None
            run.answers.append(Answered("issue", user, COUPON_ID, sent_s, gave_up_s, code, shown, key))
        else:
            run.answers.append(Answered("issue", user, COUPON_ID, sent_s, answered_s, code, shown, key))

    def refused(at_s: float) -> None:
        code = chance.choice(["TOO_MANY_REQUESTS", "SERVICE_UNAVAILABLE", "NO_ANSWER"])
        run.answers.append(Answered("issue", user, COUPON_ID, sent_s, answered_s, code, None, key))

    def look_up(at_s: float) -> None:
        left = service.remaining(at_s)
        run.answers.append(Answered("coupon", user, COUPON_ID, sent_s, answered_s, "OK", remaining=left))

    def mine(at_s: float) -> None:
        shown = service.owners.get(user)
        run.answers.append(Answered("mine", user, COUPON_ID, sent_s, answered_s, "OK", shown))

    return at_s, refused if case > 0.9 else look_up if case > 0.85 else mine if case > 0.8 else attempt
