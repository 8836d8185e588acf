"""A shop that anyone can see is right: coupons and who holds them, in dictionaries, one step after the other.

What the real service may have done without saying so is two worlds: one in which it did, one in
which it did not. Both are followed, until something that is seen fits one of them only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from couponapp.issuing.statement import IssueRequest

SHOWN_TO_HOLDERS = ("ISSUED", "REPLAYED", "ALREADY_ISSUED")


@dataclass(frozen=True)
class Coupon:
    """One coupon, in whose window the clock is moved by hand."""

    total: int
    window: str = "running"  # or «to come» or «over»
    state: str = "open"
    held_back: bool = False  # restocked when it was sold out, less than 0.9 s ago


@dataclass(frozen=True)
class Held:
    """What a user holds; the code where it has been shown."""

    key: str | None
    code: str | None = None


@dataclass(frozen=True)
class World:
    """Everything that is so: coupons by id, and what is held by coupon and user."""

    coupons: Mapping[int, Coupon] = field(default_factory=dict)
    held: Mapping[tuple[int, str], Held] = field(default_factory=dict)

    def remaining(self, coupon_id: int) -> int:
        return self.coupons[coupon_id].total - sum(held_of == coupon_id for held_of, _ in self.held)

    def with_coupon(self, coupon_id: int, coupon: Coupon) -> World:
        return replace(self, coupons={**self.coupons, coupon_id: coupon})

    def restocked(self, coupon_id: int, pieces: int) -> World:
        coupon = self.coupons[coupon_id]
        return self.with_coupon(
            coupon_id,
            replace(
                coupon,
                total=coupon.total + pieces,
                held_back=coupon.held_back or self.remaining(coupon_id) == 0,
            ),
        )

    def issued(self, coupon_id: int, requests: Sequence[IssueRequest]) -> tuple[list[str], World]:
        """What each is answered, one after the other, and the world after that."""
        world, answers = self, []
        for request in requests:
            answers.append(world._answer(coupon_id, request, were_left=self.remaining(coupon_id)))
            if answers[-1] == "ISSUED":
                world = replace(world, held={**world.held, (coupon_id, request.user_id): Held(request.key)})
        return answers, world

    def _answer(self, coupon_id: int, request: IssueRequest, *, were_left: int) -> str:
        coupon, mine = self.coupons[coupon_id], (coupon_id, request.user_id)
        with_this_key = [
            held_of
            for (held_of, user), held in self.held.items()
            if request.key is not None and user == request.user_id and held.key == request.key
        ]
        if mine in self.held:
            return "REPLAYED" if coupon_id in with_this_key else "ALREADY_ISSUED"
        if with_this_key and were_left > 0:
            return "IDEMPOTENCY_KEY_REUSED"
        if coupon.state == "closed":
            return "CLOSED"
        if coupon.window != "running":
            return "NOT_OPEN" if coupon.window == "to come" else "CLOSED"
        if coupon.state == "paused":
            return "PAUSED"
        return "SOLD_OUT" if self.remaining(coupon_id) == 0 or coupon.held_back else "ISSUED"

    def shown(self, coupon_id: int, user: str, code: str) -> World | None:
        """This world with that code for what the user holds; None where it cannot be."""
        held = self.held.get((coupon_id, user))
        if held is None or held.code not in (None, code):
            return None
        if any(other.code == code for where, other in self.held.items() if where != (coupon_id, user)):
            return None
        return replace(self, held={**self.held, (coupon_id, user): replace(held, code=code)})


class Worlds:
    """All worlds that fit what was seen so far."""

    def __init__(self) -> None:
        self._worlds = [World()]

    def become(self, change: Callable[[World], World], *, perhaps: bool = False) -> None:
        """Something has happened; or perhaps it has."""
        after = [change(world) for world in self._worlds]
        self._worlds = _different([*self._worlds, *after] if perhaps else after)

    def perhaps_issued(self, coupon_id: int, requests: Sequence[IssueRequest]) -> None:
        """The answer was lost for good."""
        self.become(lambda world: world.issued(coupon_id, requests)[1], perhaps=True)

    def are_told(
        self, coupon_id: int, requests: Sequence[IssueRequest], answers: Sequence[tuple[str, str | None]]
    ) -> None:
        """These requests were answered so: outcome, and the code that is shown; fails where that fits no world."""
        expected = [world.issued(coupon_id, requests)[0] for world in self._worlds]
        fitting: list[World | None] = []
        for world in self._worlds:
            outcomes, after = world.issued(coupon_id, requests)
            if outcomes == [outcome for outcome, _ in answers]:
                fitting.append(_learned(after, coupon_id, requests, answers))
        self._keep(fitting, f"{requests} were answered {answers}, expected one of {expected}")

    def are_seen(self, fits: Callable[[World], World | None], what: str) -> None:
        """Something was looked at; fails where it fits no world."""
        self._keep([fits(world) for world in self._worlds], what)

    def allow(self, fits: Callable[[World], bool]) -> bool:
        """Some world fits, and nobody learns which."""
        return any(fits(world) for world in self._worlds)

    def __len__(self) -> int:
        return len(self._worlds)

    def __str__(self) -> str:
        return "\n".join(map(str, self._worlds))

    def _keep(self, fitting: Iterable[World | None], what: str) -> None:
        left = _different(world for world in fitting if world is not None)
        assert left, f"{what}, in none of:\n{self}"
        self._worlds = left


def _learned(
    world: World, coupon_id: int, requests: Sequence[IssueRequest], answers: Sequence[tuple[str, str | None]]
) -> World | None:
    known: World | None = world
    for request, (outcome, code) in zip(requests, answers, strict=True):
        if known is not None and outcome in SHOWN_TO_HOLDERS:
            known = known.shown(coupon_id, request.user_id, code) if code else None
    return known


def _different(worlds: Iterable[World]) -> list[World]:
    different: list[World] = []
    for world in worlds:
        if world not in different:
            different.append(world)
    return different
