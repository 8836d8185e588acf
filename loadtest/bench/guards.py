"""What each guard costs, or saves: the service with all guards, and without one of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from loadtest.bench.core import ISSUE, new_event, sold_out_event
from loadtest.bench.servers import web_server
from loadtest.bench.turns import Group, Variant
from loadtest.testbed.service import Service

ALL = "all guards"
NO_CACHE = "without the coupon cache"
# By the first segment of the path, as in loadtest/bench/baselines/without.py.
ISSUING = {
    "backlog": "without the overload guard",
    "limits": "without the rate limits",
    "breaker": "without the circuit breaker",
    "places": "without the batcher",
    "together": "one user per statement",
    "watchdog": "without the watchdog",
    "cache": NO_CACHE,
    "any": "without any guard",
}
# Users who try again and again.
RETURNING = tuple(f"returning-{number}" for number in range(100))


@contextmanager
def guards(service: Service) -> Iterator[list[Group]]:
    """Start one web server for all variants, whose processes are the same for each.

    Args:
        service: with the database and Redis.
    """
    with web_server(service, "loadtest.bench.baselines.without:make_app()") as web:

        def issuing(name: str, missing: str = "") -> Variant:
            return Variant(name, web, new_event(service.pool, f"/~{missing}"), 201)

        def refusing(name: str, missing: str = "", users: tuple[str, ...] = ()) -> Variant:
            path = f"/~{missing}" + ISSUE.format(sold_out_event(service))
            return Variant(name, web, lambda _: path, 409, users=users)

        def looking_up(name: str, missing: str = "") -> Variant:
            path = f"/~{missing}/api/v1/coupons/{service.new_coupon(10)}"
            return Variant(name, web, lambda _: path, 200, method="GET", users=RETURNING)

        yield [
            _group("issued", issuing(ALL), *(issuing(name, missing) for missing, name in ISSUING.items())),
            _group("sold out", refusing(ALL), refusing("without the sold-out list", "sold-out-memory")),
            _group(
                "sold out, returning users",
                refusing(ALL, users=RETURNING),
                refusing("without the token cache", "token-memory", users=RETURNING),
            ),
            _group("look-up", looking_up(ALL), looking_up(NO_CACHE, "cache")),
        ]


def _group(name: str, whole: Variant, *without: Variant) -> Group:
    return Group("guards", name, (whole, *without), [(whole.name, one.name) for one in without])
