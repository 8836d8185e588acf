"""A short load through real processes, with a pause and a restock: some order of events explains every response."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from couponapp.operating.verify import verify
from couponapp.planning import coupons
from couponapp.storage.pool import Pool
from loadtest.load.history import Answered, Operated, check
from tests.support.servers import Answer, Web, running_web, send, wait_until

CLIENTS = 12
USERS = 300
TOTAL, MORE = 100, 40
PACE_S = 0.02
# A condition is met within a second or two; where it cannot be met, a wrong service has shown enough by then.
ENOUGH = 2_000
OWNERS = "SELECT user_id, code, extract(epoch FROM issued_at)::float8 AS at_s FROM issuances WHERE coupon_id = %s"
CLOCK = "SELECT extract(epoch FROM clock_timestamp())::float8 AS now_s"


@dataclass
class Crowd:
    """Clients of all users, which ask for one coupon until they are stopped, and record every response."""

    web: Web
    coupon_id: int
    tokens: dict[str, str]
    answers: list[Answered] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)
    stopped: threading.Event = field(default_factory=threading.Event)

    def ask(self, number: int) -> None:
        """Run one client: any user, any request, on a connection of its own; sometimes it does not wait."""
        chance = random.Random(number)
        connection = http.client.HTTPConnection("127.0.0.1", self.web.port, timeout=30)
        while not self.stopped.wait(chance.uniform(0, PACE_S)):
            user = chance.choice([*self.tokens])
            kind = chance.choices(["issue", "mine", "coupon"], [8, 1, 1])[0]
            key = f"key-of-{user}" if kind == "issue" and chance.random() < 0.5 else None
            impatient = kind == "issue" and chance.random() < 0.05
            self._remember(connection, user, kind, key, impatient=impatient)
        connection.close()

    def _remember(
        self, connection: http.client.HTTPConnection, user: str, kind: str, key: str | None, *, impatient: bool
    ) -> None:
        path = f"/api/v1/coupons/{self.coupon_id}"
        method, path = {"issue": ("POST", f"{path}/issue"), "mine": ("GET", "/api/v1/me/coupons")}.get(
            kind, ("GET", path)
        )
        headers = {"Idempotency-Key": key} if key else {}
        answer, sent_s = None, time.monotonic()
        if impatient:
            connection.request(method, path, headers={**headers, "Authorization": f"Bearer {self.tokens[user]}"})
            connection.close()
        else:
            answer = send(connection, method, path, token=self.tokens[user], headers=headers)
        answered = self._read(kind, user, sent_s, time.monotonic(), answer, key)
        self.codes[answered.code] += 1
        self.answers.append(answered)

    def _read(
        self, kind: str, user: str, sent_s: float, answered_s: float, answer: Answer | None, key: str | None
    ) -> Answered:
        code, shown, remaining = "NO_ANSWER", None, None
        if answer is not None:
            code, data = answer.code, answer.json["data"]
            if answer.headers.get("Idempotency-Replayed"):
                code = "REPLAYED"
            if kind == "issue":
                shown = (data or {}).get("code")
            elif code == "OK" and kind == "mine":
                shown = next((one["code"] for one in data["issuances"] if one["couponId"] == self.coupon_id), None)
            elif code == "OK":
                code, remaining = "STALE" if data["stale"] else "OK", data["remaining"]
        return Answered(kind, user, self.coupon_id, sent_s, answered_s, code, shown, key, remaining)

    def wait_for(self, code: str, times: int = 1) -> None:
        wait_until(
            lambda: self.codes[code] >= times or self.codes.total() >= ENOUGH, timeout_s=60, what=f"{times} {code}"
        )


def operated(what: str, do: Callable[[], None], pieces: int = 0) -> Operated:
    began_s = time.monotonic()
    do()
    return Operated(what, began_s, time.monotonic(), pieces)


def event(web: Web, pool: Pool, coupon_id: int, token_of: Callable[[str], str]) -> tuple[Crowd, list[str]]:
    """Run a crowd and an operator who pauses and restocks; return the contradictions too."""
    crowd = Crowd(web, coupon_id, {f"user-{number}": token_of(f"user-{number}") for number in range(USERS)})
    with ThreadPoolExecutor(CLIENTS) as executor:
        clients = [executor.submit(crowd.ask, number) for number in range(CLIENTS)]
        try:
            crowd.wait_for("ISSUED", TOTAL // 5)
            done = [operated("pause", lambda: coupons.pause(pool, coupon_id))]
            crowd.wait_for("PAUSED", 20)
            done.append(operated("resume", lambda: coupons.resume(pool, coupon_id)))
            crowd.wait_for("SOLD_OUT", 60)  # a third of these users hold one
            done.append(operated("restock", lambda: coupons.restock(pool, coupon_id, MORE), MORE))
            crowd.wait_for("ISSUED", TOTAL + MORE // 2)
        finally:
            crowd.stopped.set()
        for client in clients:
            client.result(60)
    before_s, now_s, after_s = time.monotonic(), (pool.fetch_one(CLOCK) or {})["now_s"], time.monotonic()
    rows = pool.fetch_all(OWNERS, [coupon_id])
    return crowd, check(
        crowd.answers,
        {row["user_id"]: row["code"] for row in rows},
        TOTAL,
        operated=done,
        issued_at_s={row["user_id"]: row["at_s"] - now_s + before_s for row in rows},
        clock_error_s=after_s - before_s + 0.02,
    )


def test_every_response_of_a_load_is_explained(
    tmp_path: Path,
    environ: dict[str, str],
    pool: Pool,
    new_coupon: Callable[..., int],
    token_of: Callable[[str], str],
) -> None:
    with running_web(tmp_path, {**environ, "COUPON_LIMIT_GLOBAL": "1000000/minute"}) as web:
        crowd, contradictions = event(web, pool, new_coupon(total=TOTAL), token_of)
    assert contradictions == []
    assert verify(pool).violations == []
    assert {"ISSUED", "ALREADY_ISSUED", "PAUSED", "SOLD_OUT", "REPLAYED", "OK", "NO_ANSWER"} <= crowd.codes.keys()


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ("takes no piece", "hold one at the end, of"),
        ("tells holders that it is sold out", "had been shown an issuance by"),
        ("shows a new code to a holder", "another attempt had got ISSUED"),
        ("goes on while paused", "the coupon was not open"),
        ("is sold out too early", "not all were gone"),
    ],
)
def test_the_checker_finds_a_wrong_statement_in_the_answers_alone(
    tmp_path: Path,
    environ: dict[str, str],
    pool: Pool,
    new_coupon: Callable[..., int],
    token_of: Callable[[str], str],
    wrong: str,
    expected: str,
) -> None:
    wrongly = {**environ, "COUPON_LIMIT_GLOBAL": "1000000/minute", "WRONG": wrong}
    with running_web(tmp_path, wrongly, processes=1, arguments=("tests.support.wrong_app:app",)) as web:
        _, contradictions = event(web, pool, new_coupon(total=TOTAL), token_of)
    assert any(expected in line for line in contradictions), contradictions[:5]
