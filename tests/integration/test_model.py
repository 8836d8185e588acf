"""Whatever happens in whatever order, the service does what a shop in dictionaries does.

Coupons are created, issued, restocked, paused, resumed and closed; their windows begin and end;
answers are lost after the commit, connections are cut while idle and in the middle of a statement,
and clients ask again. After each step the invariants hold and the tables are those of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psycopg
import pytest
from hypothesis import Phase

from couponapp.issuing import statement as issuing
from couponapp.planning import coupons as planning
from couponapp.storage.pool import Pool, Timeouts
from tests.support.coupon_machine import Stand, run
from tests.support.examples import examples
from tests.support.mutants import mutated
from tests.support.postgres_proxy import PostgresProxy
from tests.support.wrong_statements import WRONG_STATEMENTS

CONNECTIONS = 2


@pytest.fixture
def stand(make_pool: Callable[..., Pool], relay: PostgresProxy, database_url: str) -> Iterator[Stand]:
    judge = Pool(database_url, name="judge", max_size=1, timeouts=Timeouts.within(20_000))
    pool = make_pool(relay.url, size=CONNECTIONS)
    with (
        psycopg.connect(database_url, autocommit=True) as observer,
        psycopg.connect(database_url) as stranger,
        ThreadPoolExecutor(1) as executor,
    ):
        yield Stand(pool, judge, relay, observer, stranger, executor)
    judge.close()


@pytest.mark.generated
def test_whatever_happens_the_service_does_what_the_model_does(stand: Stand) -> None:
    run(stand, max_examples=examples(25, full=250))


WRONG_ISSUING = {
    "does not know its own issuance again": {"Outcome.ISSUED if issuance.code == self._codes[number] else": ""},
    "runs again with new codes": {
        "        try:\n            batch.run(statement)\n": "        batch._codes = [new_code() for _ in requests]\n"
        "        try:\n            batch.run(statement)\n"
    },
}
WRONG_PLANNING = {
    "raises no total at a restock": {"total = total + %(pieces)s,": "total = total,"},
    "holds nothing back after a restock": {"CASE WHEN before = 0": "CASE WHEN false"},
}


@pytest.mark.parametrize("wrong", WRONG_STATEMENTS)
def test_a_wrong_statement_is_caught(stand: Stand, wrong: str) -> None:
    is_caught(replace(stand, statement=WRONG_STATEMENTS[wrong]))


@pytest.mark.parametrize("wrong", WRONG_ISSUING)
def test_a_wrong_second_try_is_caught(stand: Stand, wrong: str) -> None:
    is_caught(replace(stand, issuing=mutated(issuing, WRONG_ISSUING[wrong])))


@pytest.mark.parametrize("wrong", WRONG_PLANNING)
def test_a_wrong_operation_is_caught(stand: Stand, wrong: str) -> None:
    is_caught(replace(stand, planning=mutated(planning, WRONG_PLANNING[wrong])))


def is_caught(stand: Stand) -> None:
    with pytest.raises(AssertionError):
        run(stand, max_examples=250, phases=[Phase.generate])
