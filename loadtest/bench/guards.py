"""What each guard costs, or saves: ours with all guards, and with one of them taken away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from loadtest.bench.core import ISSUE, new_event, sold_out_event
from loadtest.bench.servers import Web, web_server
from loadtest.bench.turns import Group, Variant
from loadtest.testbed.service import Service

ALL = "all guards"
# By the first segment of the path, as loadtest/bench/baselines/without.py has them.
ISSUING = {
    "backlog": "without the short queue",
    "limits": "without the rate limits",
    "breaker": "without the circuit breaker",
    "places": "without the places",
    "together": "one user a statement",
    "watchdog": "without the watchdog",
    "cache": "without the cache of coupons",
    "any": "without any guard",
}
NO_MEMORY = "without the sold-out memory"
NO_TOKENS = "without the memory of tokens"
NO_CACHE = "without the cache of coupons"
# So many customers who click again and again.
RETURNING = tuple(f"returning-{number}" for number in range(100))


@contextmanager
def guards(service: Service) -> Iterator[list[Group]]:
    """All variants on one web server, whose processes are the same for each.

    Args:
        service: on which they run.
    """
    with web_server(service, "loadtest.bench.baselines.without:make_app()") as web:
        yield _groups(service, web)


def _groups(service: Service, web: Web) -> list[Group]:
    def issuing(name: str, missing: str = "") -> Variant:
        return Variant(name, web, new_event(service, f"/~{missing}"), 201)

    def refusing(name: str, missing: str = "", users: tuple[str, ...] = ()) -> Variant:
        path = f"/~{missing}" + ISSUE.format(sold_out_event(service))
        return Variant(name, web, lambda _: path, 409, users=users)

    def looking_up(name: str, missing: str = "") -> Variant:
        path = f"/~{missing}/api/v1/coupons/{service.new_coupon(10)}"
        return Variant(name, web, lambda _: path, 200, method="GET", users=RETURNING)

    def group(name: str, whole: Variant, *without: Variant) -> Group:
        return Group("guards", name, (whole, *without), [(whole.name, one.name) for one in without])

    return [
        group("issued", issuing(ALL), *(issuing(name, missing) for missing, name in ISSUING.items())),
        group("sold out", refusing(ALL), refusing(NO_MEMORY, "sold-out-memory")),
        group(
            "sold out, who comes again",
            refusing(ALL, users=RETURNING),
            refusing(NO_TOKENS, "token-memory", users=RETURNING),
        ),
        group("look-up", looking_up(ALL), looking_up(NO_CACHE, "cache")),
    ]
