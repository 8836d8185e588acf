"""How cost grows: with web processes, with rows that are there already, with connections."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit, urlunsplit

import psycopg

from couponapp.planning import coupons
from couponapp.storage import migrations
from couponapp.storage.pool import Pool, Timeouts
from loadtest.bench.core import ISSUE, new_event
from loadtest.bench.servers import web_server
from loadtest.bench.turns import Group, Variant
from loadtest.testbed.service import Service

PROCESSES = (1, 2, 4)
ROWS = (10, 10_000, 1_000_000)
CONNECTIONS = (1, 4, 16, 64)
MINE = "/api/v1/me/coupons"
# Who asks for «my coupons»: holders of one each, in the smallest table as in the largest.
HOLDERS = 10
FILL_S = 300

FILL = """
INSERT INTO issuances (coupon_id, user_id, code, expires_at)
SELECT %(coupon_id)s, 'holder-' || n, md5('code of ' || n), now() + interval '30 days'
FROM generate_series(1, %(rows)s) AS n
"""


@contextmanager
def processes_and_connections(service: Service) -> Iterator[list[Group]]:
    """One web server for each number of processes; the middle one is asked over more and more connections.

    Args:
        service: on which they run.
    """
    with ExitStack() as stack:
        webs = {number: stack.enter_context(web_server(service, WEB_CONCURRENCY=str(number))) for number in PROCESSES}
        event = new_event(service)
        by_processes = [Variant(_count(number, "process"), web, event, 201) for number, web in webs.items()]
        by_connections = [
            Variant(_count(number, "connection"), webs[2], event, 201, clients=number) for number in CONNECTIONS
        ]
        yield [
            _against_one("issued, by web processes", by_processes, PROCESSES.index(2)),
            _against_one("issued, by connections", by_connections, CONNECTIONS.index(16)),
        ]


@contextmanager
def rows(service: Service, numbers: Sequence[int] = ROWS) -> Iterator[list[Group]]:
    """One database and one web server for each number of issuances.

    Args:
        service: on which they run.
        numbers: of issuances that are there already, ascending.
    """
    issuing, mine = [], []
    holders = tuple(f"holder-{number}" for number in range(1, HOLDERS + 1))
    with ExitStack() as stack:
        for number in numbers:
            url = _new_database(service.postgres.url, f"rows_{number}")
            pool = Pool(url, name="bench", max_size=1, timeouts=Timeouts.within(1_000 * FILL_S))
            stack.callback(pool.close)
            print(f"growth: {number:,} issuances into a database of their own", flush=True)
            fill(pool, number)
            web = stack.enter_context(web_server(service, DATABASE_URL=url))
            issuing.append(Variant(f"{number:,} rows", web, _event_in(pool), 201))
            mine.append(Variant(f"{number:,} rows", web, lambda _: MINE, 200, method="GET", users=holders))
        middle = len(numbers) // 2
        # What is issued makes tables longer: last, so that the smallest is still small for the other group.
        yield [_against_one("my coupons, by rows", mine, middle), _against_one("issued, by rows", issuing, middle)]


def fill(pool: Pool, number: int) -> None:
    """Put so many issuances into an empty database, all of one coupon that is sold out.

    Args:
        pool: of the database.
        number: how many; each has a holder of its own.
    """
    coupon_id = coupons.create(pool, name="지난 행사", total=number, opens_at=-3_600.0, closes_at=86_400.0)
    pool.execute(FILL, {"coupon_id": coupon_id, "rows": number}, timeout_s=FILL_S)
    pool.execute("UPDATE coupon_stock SET remaining = 0 WHERE coupon_id = %s", [coupon_id])
    # What PostgreSQL would do by itself some time, so that it does not do it during a turn.
    pool.execute("VACUUM (ANALYZE)", timeout_s=FILL_S)
    pool.execute("CHECKPOINT", timeout_s=FILL_S)


def _new_database(server: str, name: str) -> str:
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}"'.encode())
    url = urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    migrations.migrate(url)
    return url


def _event_in(pool: Pool) -> Callable[[int], str]:
    return lambda count: ISSUE.format(
        coupons.create(pool, name="새 행사", total=count, opens_at=-60.0, closes_at=86_400.0)
    )


def _against_one(name: str, variants: Sequence[Variant], middle: int) -> Group:
    """Each but the middle one as a share of the middle one."""
    ratios = [(one.name, variants[middle].name) for one in variants if one is not variants[middle]]
    return Group("growth", name, variants, ratios)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "es" if what.endswith("s") else "s")
