"""PostgreSQL's standby takes its place, in short; `make faults` has it under load."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import psutil
import psycopg
import pytest

from loadtest.driver.http_client import request_bytes
from loadtest.faults.judge import broken_records
from loadtest.testbed.replica import Replica
from tests.support.breakable import Site, impatient_site
from tests.support.crowd import Timed, crowd, out_of_bounds
from tests.support.servers import Web, running_web, wait_until

CROWD = 16
ISSUES_TIMEOUT_S = 30.0
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Pair:
    """A primary, its standby, and a web server that knows both."""

    site: Site
    standby: Replica
    web: Web

    def attempt(self, user: str) -> bytes:
        """An attempt of this user, the same with each call."""
        path = f"/api/v1/coupons/{self.site.coupon_id}/issue"
        return request_bytes("POST", path, self.site.token(user), key=f"key-of-{user}")

    def attempts(self, users: set[str]) -> dict[str, Timed]:
        """What these users are answered when all attempt at once."""
        return dict(zip(users, crowd(self.web, [self.attempt(user) for user in users]), strict=True))

    def told(self, users: set[str]) -> set[tuple[str, str]]:
        """They ask with the same keys until each of them is told «issued»: who, and which code."""
        told: dict[str, str] = {}

        def all_told() -> bool:
            answers = self.attempts(users - set(told))
            told.update({user: one.reply.issuance for user, one in answers.items() if one.reply.status == 201})
            return len(told) == len(users)

        wait_until(all_told, timeout_s=ISSUES_TIMEOUT_S, what="each is told «issued»")
        return set(told.items())

    def fail_over(self) -> None:
        """The primary is gone for good, and the standby takes its place."""
        assert self.site.postgres.child is not None
        postmaster = psutil.Process(self.site.postgres.child.process.pid)
        for process in [postmaster, *postmaster.children()]:
            process.kill()
        self.standby.promote()


@pytest.fixture
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    directory = tmp_path_factory.mktemp("pair")
    with impatient_site(directory) as site, following(site) as standby:
        environ = {**site.environ, "DATABASE_URL": standby.either_url}
        with running_web(directory, environ, processes=1) as web:
            yield Pair(site, standby, web)


@contextmanager
def following(site: Site) -> Iterator[Replica]:
    with ExitStack() as stack:
        standby = Replica(site.directory / "standby", site.postgres)
        stack.callback(standby.end)
        standby.start(site.directory / "standby")
        yield standby


def users() -> set[str]:
    return {f"holder-{next(_numbers)}" for _ in range(CROWD)}


def follow_no_more(standby: Replica) -> None:
    """It receives nothing from now on, as when the network between the two is down."""
    with psycopg.connect(standby.url, autocommit=True) as db:
        db.execute("ALTER SYSTEM SET primary_conninfo = ''")
        db.execute("SELECT pg_reload_conf()")
        receives = "SELECT FROM pg_stat_wal_receiver"
        wait_until(lambda: not db.execute(receives).fetchall(), timeout_s=20, what="it does not follow")


def test_after_a_failover_it_issues_again_and_nothing_told_is_missing(pair: Pair) -> None:
    pair.standby.make_synchronous()
    told = pair.told(users())
    pair.fail_over()
    told |= pair.told(users())
    assert broken_records(pair.standby.url, told) == []


def test_what_has_not_reached_the_standby_is_told_to_nobody(pair: Pair) -> None:
    pair.standby.make_synchronous()
    follow_no_more(pair.standby)
    late = users()
    assert out_of_bounds(pair.attempts(late).values(), 503) == []
    pair.fail_over()
    assert broken_records(pair.standby.url, pair.told(late)) == []


def test_with_a_standby_that_commits_do_not_wait_for_it_is_told_and_lost_and_the_judge_says_so(pair: Pair) -> None:
    # The negative control of the tests above.
    follow_no_more(pair.standby)
    told = pair.told(users())
    pair.fail_over()
    assert broken_records(pair.standby.url, told) == [f"{CROWD} got ISSUED and are not recorded"]
