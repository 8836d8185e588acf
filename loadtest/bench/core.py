"""The service compared with what its server alone can do, and with the usual implementations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from couponapp.issuing.statement import issue
from couponapp.storage.pool import Pool
from loadtest.bench.servers import web_server
from loadtest.bench.turns import Group, Variant
from loadtest.testbed.service import Service, new_coupon

BARE, FOR_UPDATE, REDIS_STOCK = "bare route", "FOR UPDATE + 3 limits", "Redis stock, pool of 50"
ISSUED, SOLD_OUT = "ours: issued", "ours: sold out"
ISSUE = "/api/v1/coupons/{}/issue"


@contextmanager
def core(service: Service) -> Iterator[list[Group]]:
    """Start the web servers of the variants.

    Args:
        service: with the database and Redis.
    """
    with (
        web_server(service, "loadtest.bench.baselines.bare:app") as bare,
        web_server(service) as ours,
        web_server(service, "loadtest.bench.baselines.for_update:app") as for_update,
        web_server(service, "loadtest.bench.baselines.redis_stock:app") as redis_stock,
    ):
        event, sold_out = new_event(service.pool), ISSUE.format(sold_out_event(service))
        variants = (
            Variant(BARE, bare, lambda _: ISSUE.format(1), 200),
            Variant(ISSUED, ours, event, 201),
            Variant(SOLD_OUT, ours, lambda _: sold_out, 409),
            Variant(FOR_UPDATE, for_update, event, 201),
            Variant(REDIS_STOCK, redis_stock, event, 201, settles_s=0.3),
        )
        ratios = [(ISSUED, BARE), (SOLD_OUT, BARE), (ISSUED, FOR_UPDATE), (ISSUED, REDIS_STOCK)]
        yield [Group("core", "against the baselines", variants, ratios)]


def new_event(pool: Pool, prefix: str = "") -> Callable[[int], str]:
    """Return a function that creates a coupon with a number of pieces, and returns the path of its attempts.

    Args:
        pool: of the database.
        prefix: of the path.
    """
    return lambda total: prefix + ISSUE.format(new_coupon(pool, total))


def sold_out_event(service: Service) -> int:
    """Create a coupon and issue its only piece; return its id."""
    coupon_id = service.new_coupon(1)
    issue(service.pool, coupon_id, "the-only-holder")
    return coupon_id
