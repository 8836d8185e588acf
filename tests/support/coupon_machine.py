"""The real service and the model of it, taken through the same steps by hypothesis."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import psycopg
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from couponapp.errors import ConnectionLost, RuleViolated
from couponapp.issuing import issuances
from couponapp.issuing import statement as issuing
from couponapp.issuing.statement import IssueRequest
from couponapp.operating.verify import verify
from couponapp.planning import coupons as planning
from couponapp.storage.pool import Pool
from tests.support.coupon_model import Coupon, World, Worlds
from tests.support.coupon_tables import CLEAR, fits, read_tables
from tests.support.postgres_proxy import PostgresProxy
from tests.support.servers import wait_until

HOUR_S = 3600.0
WINDOWS = {"running": (-HOUR_S, HOUR_S), "to come": (HOUR_S, 2 * HOUR_S), "over": (-2 * HOUR_S, -HOUR_S)}
NOWHERE = 2**40
# More than these at a time tell nothing new and take long.
MOST_WORLDS = 12

MOVE_WINDOW = """
UPDATE coupons SET opens_at = now() + make_interval(secs => %s), closes_at = now() + make_interval(secs => %s)
WHERE id = %s
"""
# A real second is nothing that a test should hang on: it lasts until the test says that it is over.
HOLD_BACK = "UPDATE coupons SET stocked_from = 'infinity' WHERE id = %s AND stocked_from > '-infinity'"
LET_GO = "UPDATE coupons SET stocked_from = '-infinity' WHERE id = %s"
OURS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'couponapp-test'"
WAITING = f"{OURS} AND wait_event_type = 'Lock'"
TERMINATE = "SELECT pg_terminate_backend(%s)"

USERS = [f"user-{number}" for number in range(10)]
KEYS = [None, None, "key-1", "key-2"]
REQUESTS = st.builds(IssueRequest, st.sampled_from(USERS), st.sampled_from(KEYS))
GROUPS = st.lists(REQUESTS, min_size=1, max_size=6, unique_by=lambda request: request.user_id)
WHICH = st.integers(0, 2)
TOTALS = st.sampled_from([12, 8, 5, 3, 1, 0])


@dataclass(frozen=True)
class Stand:
    """The real service, and what the test does to it.

    Attributes:
        pool: what the service works with, through the relay.
        judge: looks on, not through the relay.
        relay: loses answers.
        observer: cuts connections.
        stranger: holds locks.
        statement: to issue with.
        issuing: the module that issues.
        planning: the module of operators.
    """

    pool: Pool
    judge: Pool
    relay: PostgresProxy
    observer: psycopg.Connection[Any]
    stranger: psycopg.Connection[Any]
    executor: ThreadPoolExecutor
    statement: str = issuing.ISSUE
    issuing: ModuleType = issuing
    planning: ModuleType = planning

    def issue(self, coupon_id: int, requests: Sequence[IssueRequest]) -> list[tuple[str, str | None]]:
        attempts = self.issuing.issue_batch(self.pool, coupon_id, requests, statement=self.statement)
        return [(one.outcome.value, one.issuance.code if one.issuance else None) for one in attempts]

    def lose(self, answers: int) -> None:
        left = itertools.count(answers, -1)
        self.relay.loses = lambda: next(left) > 0

    def cut_all(self) -> None:
        cut = self.observer.execute(OURS).fetchall()
        for pid in cut:
            self.observer.execute(TERMINATE, pid)
        wait_until(lambda: not {*cut} & {*self.observer.execute(OURS).fetchall()}, timeout_s=20, what="all are gone")

    def cut_in_the_middle(self, future: Future[Any]) -> None:
        """End the connection of whoever waits for the stranger's lock, unless nobody does."""
        waiting = wait_until(
            lambda: future.done() or self.observer.execute(WAITING.encode()).fetchone(), timeout_s=20, what="it waits"
        )
        if waiting is not True:
            self.observer.execute(TERMINATE, waiting)
            wait_until(
                lambda: waiting not in self.observer.execute(OURS).fetchall(), timeout_s=20, what="its server is gone"
            )


class Shop(RuleBasedStateMachine):
    """The steps, each taken in the service and in the model."""

    def __init__(self, stand: Stand) -> None:
        super().__init__()
        self.stand = stand
        self.stand.judge.execute(CLEAR)
        self.worlds = Worlds()
        self.ids: list[int] = []
        self.last: tuple[int, list[IssueRequest]] | None = None

    def pick(self, which: int) -> int:
        return self.ids[which % len(self.ids)]

    @initialize(total=TOTALS.filter(bool))
    def first_coupon(self, total: int) -> None:
        self.create(total, "running")

    @precondition(lambda self: len(self.ids) < 3)
    @rule(total=TOTALS, window=st.sampled_from([*WINDOWS, "running", "running"]))
    def create(self, total: int, window: str) -> None:
        opens_s, closes_s = WINDOWS[window]
        made = self.stand.planning.create(
            self.stand.judge, name="쿠폰", total=total, opens_at=opens_s, closes_at=closes_s
        )
        self.ids.append(made)
        self.worlds.become(lambda world: world.with_coupon(made, Coupon(total, window)))

    @rule(which=WHICH, request=REQUESTS)
    def issue(self, which: int, request: IssueRequest) -> None:
        self.attempt(self.pick(which), [request])

    @rule(which=WHICH, requests=GROUPS)
    def issue_batch(self, which: int, requests: list[IssueRequest]) -> None:
        self.attempt(self.pick(which), requests)

    @rule(which=WHICH, requests=GROUPS, answers=st.integers(1, 2))
    def issue_and_lose_answers(self, which: int, requests: list[IssueRequest], answers: int) -> None:
        self.stand.lose(answers)
        self.attempt(self.pick(which), requests)
        self.stand.lose(0)

    @rule(which=WHICH, requests=GROUPS, cuts=st.integers(1, 2))
    def issue_and_crash_in_the_middle(self, which: int, requests: list[IssueRequest], cuts: int) -> None:
        coupon_id = self.pick(which)
        self.stand.stranger.execute("SELECT FROM coupon_stock WHERE coupon_id = %s FOR UPDATE", [coupon_id])
        try:
            future = self.stand.executor.submit(self.stand.issue, coupon_id, requests)
            for _ in range(cuts):
                self.stand.cut_in_the_middle(future)
        finally:
            self.stand.stranger.rollback()
        self.settle(coupon_id, requests, lambda: future.result(60))

    @rule(which=WHICH)
    def everybody_comes(self, which: int) -> None:
        self.attempt(self.pick(which), [IssueRequest(user) for user in USERS])

    @rule()
    def crash_of_all_connections(self) -> None:
        self.stand.cut_all()

    @precondition(lambda self: self.last is not None)
    @rule()
    def ask_again(self) -> None:
        assert self.last is not None
        self.attempt(*self.last)

    @rule(request=REQUESTS)
    def ask_for_what_is_not_there(self, request: IssueRequest) -> None:
        with contextlib.suppress(ConnectionLost):
            assert self.stand.issue(NOWHERE, [request]) == [("COUPON_NOT_FOUND", None)]

    def attempt(self, coupon_id: int, requests: list[IssueRequest]) -> None:
        self.settle(coupon_id, requests, lambda: self.stand.issue(coupon_id, requests))

    def settle(
        self, coupon_id: int, requests: list[IssueRequest], answer: Callable[[], list[tuple[str, str | None]]]
    ) -> None:
        self.last = coupon_id, requests
        try:
            answers = answer()
        except ConnectionLost:
            self.worlds.perhaps_issued(coupon_id, requests)
        else:
            self.worlds.are_told(coupon_id, requests, answers)

    @rule(which=WHICH, pieces=st.integers(1, 5), lost=st.booleans(), later=st.booleans())
    def restock(self, which: int, pieces: int, lost: bool, later: bool) -> None:
        coupon_id = self.pick(which)
        if lost:
            self.stand.lose(1)
        self.operate(
            lambda: self.stand.planning.restock(self.stand.pool, coupon_id, pieces),
            coupon_id,
            lambda world: world.restocked(coupon_id, pieces),
        )
        self.stand.lose(0)
        self.stand.judge.execute(HOLD_BACK, [coupon_id])
        if later:
            self.a_second_has_passed(coupon_id)

    @rule(which=WHICH, state=st.sampled_from(["open", "paused"]))
    def pause_or_resume(self, which: int, state: str) -> None:
        coupon_id = self.pick(which)
        do = self.stand.planning.pause if state == "paused" else self.stand.planning.resume
        self.operate(lambda: do(self.stand.pool, coupon_id), coupon_id, _state(coupon_id, state))

    @precondition(lambda self: len(self.ids) > 1)
    @rule(which=WHICH)
    def close(self, which: int) -> None:
        coupon_id = self.pick(which)
        try:
            self.stand.planning.close(self.stand.pool, coupon_id)
        except ConnectionLost:
            self.worlds.become(_state(coupon_id, "closed"), perhaps=True)
        else:
            self.worlds.become(_state(coupon_id, "closed"))

    def operate(self, do: Callable[[], None], coupon_id: int, change: Callable[[World], World]) -> None:
        """What an operator does; it is refused where the coupon is closed for good, which tells that it is."""

        def closed(world: World) -> bool:
            return world.coupons[coupon_id].state == "closed"

        try:
            do()
        except ConnectionLost:
            self.worlds.become(lambda world: world if closed(world) else change(world), perhaps=True)
        except RuleViolated:
            self.worlds.are_seen(lambda world: world if closed(world) else None, f"coupon {coupon_id} is closed")
        else:
            self.worlds.are_seen(lambda world: None if closed(world) else change(world), f"coupon {coupon_id} is not")

    @rule(which=WHICH, window=st.sampled_from([*["running"] * 4, "over"]))
    def time_passes(self, which: int, window: str) -> None:
        coupon_id = self.pick(which)
        self.stand.judge.execute(MOVE_WINDOW, [*WINDOWS[window], coupon_id])
        self.worlds.become(lambda world: world.with_coupon(coupon_id, replace(world.coupons[coupon_id], window=window)))

    @rule(which=WHICH)
    def a_second_passes(self, which: int) -> None:
        self.a_second_has_passed(self.pick(which))

    def a_second_has_passed(self, coupon_id: int) -> None:
        self.stand.judge.execute(LET_GO, [coupon_id])
        self.worlds.become(
            lambda world: world.with_coupon(coupon_id, replace(world.coupons[coupon_id], held_back=False))
        )

    @rule(user=st.sampled_from(USERS))
    def look_at_my_coupons(self, user: str) -> None:
        found = {one.coupon_id: one.code for one in issuances.list_of_holder(self.stand.judge, user, limit=10)}
        self.worlds.are_seen(lambda world: _as_listed(world, user, found), f"{user} holds {found}")

    @invariant()
    def the_invariants_hold_and_the_tables_are_those_of_a_world(self) -> None:
        assert verify(self.stand.judge).violations == []
        tables = read_tables(self.stand.judge)
        assert self.worlds.allow(lambda world: fits(world, tables)), f"{tables} in none of:\n{self.worlds}"
        if len(self.worlds) > MOST_WORLDS:
            self.look_at_the_tables()

    def teardown(self) -> None:
        self.stand.lose(0)
        self.look_at_the_tables()

    def look_at_the_tables(self) -> None:
        tables = read_tables(self.stand.judge)
        self.worlds.are_seen(lambda world: world if fits(world, tables) else None, f"there are {tables}")


def _state(coupon_id: int, state: str) -> Callable[[World], World]:
    return lambda world: world.with_coupon(coupon_id, replace(world.coupons[coupon_id], state=state))


def _as_listed(world: World, user: str, found: dict[int, str]) -> World | None:
    if found.keys() != {coupon_id for coupon_id, holder in world.held if holder == user}:
        return None
    known: World | None = world
    for coupon_id, code in found.items():
        known = known.shown(coupon_id, user, code) if known is not None else None
    return known


FIXED: dict[str, Any] = {
    "database": None,
    "deadline": None,
    "derandomize": True,
    "stateful_step_count": 30,
    "report_multiple_bugs": False,
    "suppress_health_check": list(HealthCheck),
}


def run(stand: Stand, **more: Any) -> None:
    class OnThisStand(Shop):
        def __init__(self) -> None:
            super().__init__(stand)

    run_state_machine_as_test(OnThisStand, settings=settings(**FIXED, **more))
