"""A whole event over HTTP: real gunicorn with several processes, a real worker, everybody at once."""

from __future__ import annotations

import http.client
import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from couponapp.operating.verify import verify
from couponapp.planning import coupons
from couponapp.storage.pool import Pool
from tests.support.servers import Answer, Web, running_web, running_worker, wait_until

STOCK = 300
USERS = 900
CLIENTS = 30  # each with two connections


@dataclass(frozen=True)
class Told:
    """What a user's two simultaneous requests were told."""

    user: str
    answers: tuple[Answer, Answer]


@pytest.fixture
def web(tmp_path: Path, environ: dict[str, str]) -> Iterator[Web]:
    # What is asserted is who gets one, not how fast: a busy machine must not turn that into 503s.
    with running_web(tmp_path, {**environ, "COUPON_DEADLINE_MS": "30000"}, processes=3) as web:
        yield web


def twice_at_the_same_moment(web: Web, path: str, users: list[tuple[str, str]]) -> list[Told]:
    """Each user's two requests are on the wire before either is read."""

    def client(part: list[tuple[str, str]]) -> Iterator[Told]:
        pair = [http.client.HTTPConnection("127.0.0.1", web.port, timeout=30) for _ in range(2)]
        for user, token in part:
            for connection in pair:
                connection.request("POST", path, headers={"Authorization": f"Bearer {token}"})
            responses = [connection.getresponse() for connection in pair]
            first, second = (Answer(one.status, dict(one.getheaders()), one.read()) for one in responses)
            yield Told(user, (first, second))
        for connection in pair:
            connection.close()

    with ThreadPoolExecutor(CLIENTS) as executor:
        parts = executor.map(lambda n: list(client(users[n::CLIENTS])), range(CLIENTS))
        return [told for part in parts for told in part]


def test_300_pieces_900_users_each_twice_at_the_same_moment(
    web: Web,
    tmp_path: Path,
    environ: dict[str, str],
    pool: Pool,
    new_coupon: Callable[..., int],
    token_of: Callable[[str], str],
) -> None:
    coupon_id = new_coupon(total=STOCK)
    users = [(f"user-{number}", token_of(f"user-{number}")) for number in range(USERS)]
    with running_worker(tmp_path, environ):
        told = twice_at_the_same_moment(web, f"/api/v1/coupons/{coupon_id}/issue", users)
        owners = {
            row["user_id"]: row["code"]
            for row in pool.fetch_all("SELECT user_id, code FROM issuances WHERE coupon_id = %s", [coupon_id])
        }
        assert acknowledged(told) == owners
        assert len(owners) == STOCK
        assert {pair(one) for one in told if one.user not in owners} == {("SOLD_OUT", "SOLD_OUT")}
        assert {pair(one) for one in told if one.user in owners} == {("ALREADY_ISSUED", "ISSUED")}
        wait_until(lambda: verify(pool).coupons[0]["waiting"] == 0, timeout_s=60, what="every holder is notified")
    assert verify(pool).clean
    assert notified(tmp_path) == Counter(owners.keys())


def pair(told: Told) -> tuple[str, ...]:
    return tuple(sorted(answer.code for answer in told.answers))


def acknowledged(told: list[Told]) -> dict[str, str]:
    """Users and the codes that 201s promised them, each once."""
    found: dict[str, str] = {}
    for one in told:
        for answer in one.answers:
            if answer.status == 201:
                assert one.user not in found
                found[one.user] = answer.json["data"]["code"]
    return found


def notified(directory: Path) -> Counter[str]:
    """How many times the worker sent something to each user: by its log, since a file counts once."""
    sent = Counter(re.findall(r"notified: issuance (\d+) ", (directory / "worker.log").read_text()))
    users: Counter[str] = Counter()
    for path in (directory / "notifications").glob("*.txt"):
        user = path.read_text().splitlines()[0].removeprefix("받는 사람: ")
        users[user] += sent[path.stem.rpartition("-")[2]]
    return users


def test_a_pause_reaches_every_process_within_a_second_and_so_does_a_restock(
    web: Web,
    pool: Pool,
    new_coupon: Callable[..., int],
    token_of: Callable[[str], str],
) -> None:
    coupon_id = new_coupon(total=1000)
    path = f"/api/v1/coupons/{coupon_id}"

    def seen_by_all(status: str, total: int) -> bool:
        """Many new connections in a row: the kernel spreads them over the processes."""
        data = [web.request("GET", path).json["data"] for _ in range(20)]
        return all((one["status"], one["total"]) == (status, total) for one in data)

    assert web.request("POST", f"{path}/issue", token=token_of("kim")).code == "ISSUED"
    coupons.pause(pool, coupon_id)
    assert web.request("POST", f"{path}/issue", token=token_of("lee")).code == "PAUSED"
    wait_until(lambda: seen_by_all("PAUSED", 1000), timeout_s=5, what="the pause is seen everywhere")
    coupons.resume(pool, coupon_id)
    coupons.restock(pool, coupon_id, 5)
    wait_until(lambda: seen_by_all("OPEN", 1005), timeout_s=5, what="the restock is seen everywhere")
    assert web.request("POST", f"{path}/issue", token=token_of("lee")).code == "ISSUED"
    coupons.close(pool, coupon_id)
    assert web.request("POST", f"{path}/issue", token=token_of("park")).code == "CLOSED"
