"""Ours against what the server alone can do, and against the usual ways to do it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from couponapp.issuing.statement import issue
from loadtest.bench.servers import web_server
from loadtest.bench.turns import Group, Variant
from loadtest.testbed.service import Service

BARE, FOR_UPDATE, REDIS_STOCK = "bare route", "FOR UPDATE + 3 limits", "Redis stock, pool of 50"
ISSUED, SOLD_OUT = "ours: issued", "ours: sold out"
ISSUE = "/api/v1/coupons/{}/issue"


@contextmanager
def core(service: Service) -> Iterator[list[Group]]:
    """The variants, on web servers of their own.

    Args:
        service: on which they run.
    """
    with (
        web_server(service, "loadtest.bench.baselines.bare:app") as bare,
        web_server(service) as ours,
        web_server(service, "loadtest.bench.baselines.for_update:app") as for_update,
        web_server(service, "loadtest.bench.baselines.redis_stock:app") as redis_stock,
    ):
        event, sold_out = new_event(service), ISSUE.format(sold_out_event(service))
        variants = (
            Variant(BARE, bare, lambda _: ISSUE.format(1), 200),
            Variant(ISSUED, ours, event, 201),
            Variant(SOLD_OUT, ours, lambda _: sold_out, 409),
            Variant(FOR_UPDATE, for_update, event, 201),
            Variant(REDIS_STOCK, redis_stock, event, 201, settles_s=0.3),
        )
        ratios = [(ISSUED, BARE), (SOLD_OUT, BARE), (ISSUED, FOR_UPDATE), (ISSUED, REDIS_STOCK)]
        yield [Group("core", "against the baselines", variants, ratios)]


def new_event(service: Service, prefix: str = "") -> Callable[[int], str]:
    """Makes coupons, each with a piece for each who will ask, and tells where to ask.

    Args:
        service: of the coupons.
        prefix: what stands before the path.
    """
    return lambda count: prefix + ISSUE.format(service.new_coupon(count))


def sold_out_event(service: Service) -> int:
    """A coupon whose only piece is gone."""
    coupon_id = service.new_coupon(1)
    issue(service.pool, coupon_id, "the one who got it")
    return coupon_id
