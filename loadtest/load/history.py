"""Checks whether some order of events explains every response of a run, like Jepsen's checkers.

    from loadtest.load.history import Answered, Operated, check
    contradictions = check(answers, owners, total, operated=operated)   # [] where all is explained

The caller records every request that it has sent, answered or not, on one clock, and reads the
issuances at the end. A request took effect at an unknown moment between its sending and its
response; one without a response, or with a 503, at any later moment or never. A response is accepted
where any moment that it leaves open explains it, so no run of a correct service is rejected; what is
reported cannot have happened. docs/decisions/0024 says which promise each rule comes from.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from loadtest.load.answered import COUPON, ISSUE, MINE, REFUSALS, Answered
from loadtest.load.possible import FROM_THE_START, NEVER, Life, Operated, Times

__all__ = ["FROM_THE_START", "NEVER", "Answered", "Operated", "check"]

# The contract: a process's view of a coupon is at most a second old.
STALE_S = 1.0


def check(
    answers: Sequence[Answered],
    owners: Mapping[str, str],
    total: int,
    *,
    operated: Sequence[Operated] = (),
    opens_s: float = FROM_THE_START,
    closes_s: float = NEVER,
    issued_at_s: Mapping[str, float] | None = None,
    held_before: Collection[str] = (),
    coupon_id: int | None = None,
    clock_error_s: float = 0.05,
) -> list[str]:
    """Return everything about one coupon that no order of events explains, ordered by time.

    Args:
        answers: every request of the run, also those without a response, in any order.
        owners: the holders at the end, and their codes.
        total: the coupon's pieces at the start of the run; restocks of the run are in `operated`.
        operated: restock, pause, resume and close, in the order in which they were done.
        opens_s: when the coupon opens, on the clock of the answers, in seconds.
        closes_s: when it closes, on the same clock.
        issued_at_s: the database's `issued_at` of each owner, converted to the clock of the answers.
        held_before: the holders before the run.
        coupon_id: the coupon to check, where `answers` are of several; keys used for the others count then.
        clock_error_s: maximum error of the database's times on the clock of the answers, in seconds.

    Raises:
        ValueError: the answers are of several coupons and `coupon_id` is missing.
    """
    if coupon_id is None and len({one.coupon_id for one in answers}) > 1:
        raise ValueError("the answers are of several coupons: say which by coupon_id")
    here, elsewhere = defaultdict(list), set()
    for one in sorted(answers, key=lambda one: (one.sent_s, one.answered_s)):
        if coupon_id is None or one.coupon_id == coupon_id:
            here[one.user].append(one)
        elif one.key is not None and (one.code == "ISSUED" or one.is_unknown):
            elsewhere.add((one.user, one.key))
    life = Life(total, opens_s, closes_s, clock_error_s, operated)
    at_s = issued_at_s or {}
    holders = {
        user: _Holder(user, owners.get(user), here[user], user in held_before, at_s.get(user), clock_error_s)
        for user in {*owners, *here}
    }
    found = [*_of_the_table(life, owners, holders)]
    when_open = life.open()
    for holder in holders.values():
        found += holder.contradictions(when_open)
    run = _Run(life, [one for one in holders.values() if one.code or one.latest_s < math.inf])
    for user, asked in here.items():
        for one in asked:
            if (why := run.unexplained(one)) is not None:
                found.append((one.answered_s, f"{one}, but {why}"))
            elif one.code == "IDEMPOTENCY_KEY_REUSED" and coupon_id is not None and (user, one.key) not in elsewhere:
                found.append((one.answered_s, f"{one}, but that key was used for no other coupon"))
    return [text for _, text in sorted(found)]


_Found = tuple[float, str]


def _of_the_table(life: Life, owners: Mapping[str, str], holders: Mapping[str, _Holder]) -> Iterator[_Found]:
    """Yield contradictions in the rows at the end."""
    most = life.most_total(math.inf)
    if len(owners) > most:
        yield math.inf, f"{len(owners)} hold one at the end, of {most} pieces"
    for code, times in Counter(owners.values()).items():
        if times > 1:
            yield math.inf, f"{times} users hold the code {code}"
    oversold_s = life.oversold_s(one.latest_s for one in holders.values() if one.latest_s < math.inf)
    if oversold_s is not None:
        pieces = life.most_total(oversold_s)
        yield oversold_s, f"by {oversold_s:.3f} s more users had been shown an issuance than the {pieces} pieces"


@dataclass
class _Holder:
    """One user: the issuance in the table, and the responses about it.

    Attributes:
        user: the user.
        code: of the issuance at the end, or None.
        answers: all responses of this user.
        held_before: whether the user held it before the run.
        issued_at_s: time of the row, where it is known.
        clock_error_s: maximum error of `issued_at_s`.
        earliest_s: it was not issued before.
        latest_s: it was issued by then.
    """

    user: str
    code: str | None
    answers: Sequence[Answered]
    held_before: bool
    issued_at_s: float | None
    clock_error_s: float

    def __post_init__(self) -> None:
        self._shown = [one for one in self.answers if one.shows_one]
        self._issued = [one for one in self.answers if one.kind == ISSUE and one.code == "ISSUED"]
        # An attempt that got ISSUED is the source; otherwise any with an unknown result may be.
        self._sources = self._issued or [one for one in self.answers if one.is_unknown]
        self.latest_s = min((one.answered_s for one in self._shown), default=math.inf)
        self.earliest_s = min((one.sent_s for one in self._sources), default=-math.inf)
        if self.held_before:
            self.earliest_s = self.latest_s = -math.inf
            self.issued_at_s = None
        elif self.issued_at_s is not None:
            # Its statement began then, and no response can have shown it before.
            self.earliest_s = max(self.earliest_s, self.issued_at_s - self.clock_error_s)

    def contradictions(self, when_open: Times) -> Iterator[_Found]:
        """Yield contradictions between this user's responses, and with the row."""
        if self.code is not None and not self._sources and not self.held_before:
            yield math.inf, f"{self.user} holds {self.code}, but none of their attempts can have got it"
        if self._issued and self.held_before:
            yield self._issued[0].answered_s, f"{self._issued[0]}, but they held one before the run"
        for one in self._issued[1:]:
            yield one.answered_s, f"{one}, but another attempt had got ISSUED"
        for one in self._shown:
            if one.issuance_code is None:
                yield one.answered_s, f"{one}, and no code of an issuance"
            elif one.issuance_code != self.code:
                held = f"holds {self.code}" if self.code else "holds none"
                yield one.answered_s, f"{one}, but at the end this user {held}"
            yield from self._not_before(one)
        for one in self.answers:
            if one.sent_s > self.latest_s and _denies(one):
                yield one.answered_s, f"{one}, but had been shown an issuance by {self.latest_s:.3f} s"
        yield from self._of_the_moment(when_open)

    def _not_before(self, one: Answered) -> Iterator[_Found]:
        """Yield responses that show an issuance before anything can have issued it, or with a wrong key."""
        if self.held_before or one in self._issued:
            return
        if one.answered_s < self.earliest_s:
            yield one.answered_s, f"{one}, but nothing can have issued it before {self.earliest_s:.3f} s"
        if one.code == "REPLAYED" and one.key not in {source.key for source in self._sources}:
            yield one.answered_s, f"{one}, but no attempt with that key can have got it"
        if one.code == "ALREADY_ISSUED" and one.key is not None and one.key in {issued.key for issued in self._issued}:
            yield one.answered_s, f"{one}, but it was issued with that key, so this is a replay"

    def _of_the_moment(self, when_open: Times) -> Iterator[_Found]:
        """Yield a row whose `issued_at` is outside of every attempt, or of the time when the coupon was open."""
        if self.issued_at_s is None or self.code is None:
            return
        from_s, to_s = self.issued_at_s - self.clock_error_s, self.issued_at_s + self.clock_error_s
        row = f"the row of {self.user} says that it was issued at {self.issued_at_s:.3f} s"
        if from_s > self.latest_s:
            yield self.issued_at_s, f"{row}, but they had been shown it by {self.latest_s:.3f} s"
        if self._sources and to_s < min(one.sent_s for one in self._sources):
            yield self.issued_at_s, f"{row}, before any attempt that can have got it"
        # The row has the time at which the statement began; it read the coupon a little later.
        if not when_open.meet(from_s, max(to_s, self.latest_s)):
            yield self.issued_at_s, f"{row}, but the coupon was not open"


def _denies(one: Answered) -> bool:
    """Whether it is a response that a certain holder must not get."""
    if one.kind == MINE:
        return one.code == "OK" and one.issuance_code is None
    if one.kind != ISSUE:
        return False
    if one.code in ("PAUSED", "CLOSED"):
        # Such an attempt is not looked up without a key.
        return one.key is not None
    return one.code == "ISSUED" or one.code in REFUSALS


class _Run:
    """The states that the coupon may have had at each moment of the run."""

    def __init__(self, life: Life, holders: Sequence[_Holder]) -> None:
        self._life = life
        self._perhaps_gone_s = sorted(one.earliest_s for one in holders)
        self._surely_gone_s = sorted(one.latest_s for one in holders if one.latest_s < math.inf)
        when_open = life.open()
        # By code: when it is correct, its maximum age in seconds, and why it is wrong otherwise.
        self._rules: dict[str, list[tuple[Times, float, str]]] = {
            "ISSUED": [(when_open, 0.0, "the coupon was not open")],
            "NOT_OPEN": [(life.not_open_yet(), 0.0, "it had opened")],
            "CLOSED": [(life.closed(), 0.0, "it was not closed")],
            "PAUSED": [(life.paused(), STALE_S, "it was not paused")],
            "SOLD_OUT": [
                (when_open, STALE_S, "the coupon was not open"),
                (life.sold_out(self._perhaps_gone_s), STALE_S, "not all were gone"),
            ],
            "COUPON_NOT_FOUND": [(Times([]), 0.0, "there is such a coupon")],
        }

    def unexplained(self, one: Answered) -> str | None:
        """Return why no state of the coupon explains this response, or None."""
        if one.kind == COUPON:
            return self._wrong_remaining(one)
        if one.kind != ISSUE:
            return None
        for times, old_s, why in self._rules.get(one.code, ()):
            if not times.meet(one.sent_s - old_s, one.answered_s):
                gone, total = self._perhaps_gone(one.answered_s), self._life.least_total(one.answered_s)
                return f"{why}; perhaps {gone} of {total} pieces were gone" if one.code == "SOLD_OUT" else why
        return "there was no key" if one.code == "IDEMPOTENCY_KEY_REUSED" and one.key is None else None

    def _wrong_remaining(self, one: Answered) -> str | None:
        if one.code != "OK" or one.remaining is None:
            return None
        from_s = one.sent_s - STALE_S
        least = max(0, self._life.least_total(from_s) - self._perhaps_gone(one.answered_s))
        most = self._life.most_total(one.answered_s) - bisect_right(self._surely_gone_s, from_s)
        if least <= one.remaining <= most:
            return None
        return f"{one.remaining} remaining is not from {least} to {most}"

    def _perhaps_gone(self, at_s: float) -> int:
        return bisect_right(self._perhaps_gone_s, at_s)
