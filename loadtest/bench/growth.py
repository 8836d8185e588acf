"""How cost grows: with web processes, with existing rows, with connections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit, urlunsplit

import psycopg

from couponapp.planning import coupons
from couponapp.storage import migrations
from couponapp.storage.pool import Pool, Timeouts
from loadtest.bench.core import new_event
from loadtest.bench.servers import web_server
from loadtest.bench.turns import Group, Variant
from loadtest.testbed.service import Service

# Each is compared with the one in the middle.
PROCESSES = ("1 process", "2 processes", "4 processes")
CONNECTIONS = ("1 connection", "4 connections", "16 connections", "64 connections")
ROWS = (10, 10_000, 1_000_000)
MINE = "/api/v1/me/coupons"
# Users of «my coupons»: holders of one each, in the smallest table as in the largest.
HOLDERS = 10
FILL_S = 300

FILL = """
INSERT INTO issuances (coupon_id, user_id, code, expires_at)
SELECT %(coupon_id)s, 'holder-' || n, md5('code of ' || n), now() + interval '30 days'
FROM generate_series(1, %(rows)s) AS n
"""


@contextmanager
def processes_and_connections(service: Service) -> Iterator[list[Group]]:
    """Start one web server for each number of processes; the middle one also gets the numbers of connections.

    Args:
        service: with the database and Redis.
    """
    with ExitStack() as stack:
        event = new_event(service.pool)
        webs = {name: stack.enter_context(web_server(service, WEB_CONCURRENCY=name.split()[0])) for name in PROCESSES}
        middle = webs[PROCESSES[len(PROCESSES) // 2]]
        by_processes = [Variant(name, web, event, 201) for name, web in webs.items()]
        by_connections = [Variant(name, middle, event, 201, clients=int(name.split()[0])) for name in CONNECTIONS]
        yield [
            _against_one("issued, by web processes", by_processes),
            _against_one("issued, by connections", by_connections),
        ]


@contextmanager
def rows(service: Service, numbers: Sequence[int] = ROWS) -> Iterator[list[Group]]:
    """Start one database and one web server for each number of issuances.

    Args:
        service: with the database server and Redis.
        numbers: of existing issuances, ascending.
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
            issuing.append(Variant(f"{number:,} rows", web, new_event(pool), 201))
            mine.append(Variant(f"{number:,} rows", web, lambda _: MINE, 200, method="GET", users=holders))
        # Issuing makes tables longer: last, so that the smallest is still small for the other group.
        yield [_against_one("my coupons, by rows", mine), _against_one("issued, by rows", issuing)]


def fill(pool: Pool, number: int) -> None:
    """Insert issuances into an empty database, all of one coupon that is sold out.

    Args:
        pool: of the database.
        number: how many; each has a holder of its own.
    """
    coupon_id = coupons.create(pool, name="지난 행사", total=number, opens_at=-3_600.0, closes_at=86_400.0)
    pool.execute(FILL, {"coupon_id": coupon_id, "rows": number}, timeout_s=FILL_S)
    pool.execute("UPDATE coupon_stock SET remaining = 0 WHERE coupon_id = %s", [coupon_id])
    # PostgreSQL would do both at some time, perhaps during a turn.
    pool.execute("VACUUM (ANALYZE)", timeout_s=FILL_S)
    pool.execute("CHECKPOINT", timeout_s=FILL_S)


def _new_database(server: str, name: str) -> str:
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}"'.encode())
    url = urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    migrations.migrate(url)
    return url


def _against_one(name: str, variants: Sequence[Variant]) -> Group:
    """Return a group in which each other variant is compared with the middle one."""
    middle = variants[len(variants) // 2]
    ratios = [(one.name, middle.name) for one in variants if one is not middle]
    return Group("growth", name, variants, ratios)
