"""The unit tests mirror the modules.

`couponapp/guards/batcher.py` is tested by `tests/unit/guards/test_batcher.py`, where more than one file is
needed with a suffix (`test_circuit_breaker_threads.py`), and `loadtest/load/plans.py` by
`tests/unit/loadtest/load/test_plans.py`. A module without a unit test stands in `ELSEWHERE`: by itself, or
with all modules of its folder that have none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from tests.support.servers import ROOT

PACKAGES = ("couponapp", "loadtest")
UNIT = ROOT / "tests" / "unit"
# Tests of the repository itself.
APART = "repository"

# What needs a server, a process or a whole run, and the tests below tests/ that prove it.
ELSEWHERE: dict[str, str] = {
    "couponapp/cli": "integration/test_cli.py",
    "couponapp/guards/redis_counters.py": "integration/test_counters.py",
    "couponapp/issuing/issuances.py": "integration/test_api.py",
    "couponapp/issuing/service.py": "integration/test_known_without_asking.py integration/test_breaker_on_the_path.py",
    "couponapp/issuing/sold_out.py": "integration/test_sold_out.py",
    "couponapp/issuing/statement.py": "integration/test_statement.py integration/test_model.py",
    "couponapp/local": "acceptance/test_make_run.py acceptance/test_embedded_postgres.py",
    "couponapp/metrics.py": "integration/test_notifications_metrics.py acceptance/test_breaker_switch.py",
    "couponapp/notifying/archive.py": "integration/test_notifications_archive.py",
    "couponapp/notifying/channels/webhook/client.py": "unit/notifying/channels/webhook/test_channel.py",
    "couponapp/notifying/dead_letters.py": "integration/test_dead_letters.py",
    "couponapp/notifying/deliveries.py": "integration/test_retry_policy.py",
    "couponapp/notifying/jobs.py": "integration/test_notifying.py integration/test_notifications_breaker.py",
    "couponapp/notifying/relay.py": "integration/test_notifying.py",
    "couponapp/notifying/state.py": "integration/test_notification_states.py",
    "couponapp/operating/verify.py": "integration/test_planning.py",
    "couponapp/planning": "integration/test_planning.py",
    "couponapp/server": "acceptance/test_gevent_worker.py acceptance/test_slow_clients.py",
    "couponapp/services.py": "integration/test_services.py",
    "couponapp/storage/session.py": "integration/test_session.py",
    "couponapp/web/api": "integration/test_api.py integration/test_openapi.py",
    "couponapp/web/app.py": "integration/test_every_route.py",
    "couponapp/web/current.py": "integration/test_services.py",
    "couponapp/web/held_coupons.py": "integration/test_api.py acceptance/test_pages.py",
    "couponapp/web/limits.py": "integration/test_limited_views.py",
    "couponapp/web/pages": "acceptance/test_pages.py integration/test_bad_input_of_pages.py",
    "couponapp/web/probes.py": "integration/test_readiness.py integration/test_api.py",
    "couponapp/worker": "acceptance/test_notifications_survive.py",
    "loadtest/bench": "acceptance/test_bench.py",
    "loadtest/bench/baselines": "acceptance/test_bench.py",
    "loadtest/driver/nonblocking_client.py": "unit/loadtest/driver/test_generator.py",
    "loadtest/driver/usage.py": "acceptance/test_load.py",
    # The faults themselves happen in `make faults`; the tests try each kind, in short.
    "loadtest/faults": "acceptance/test_loadtest.py acceptance/test_web_faults.py acceptance/test_rolling_restart.py",
    "loadtest/load": "acceptance/test_load.py",
    "loadtest/testbed": "acceptance/test_loadtest.py acceptance/test_rolling_restart.py acceptance/test_failover.py",
}


def modules() -> set[str]:
    """All modules by their paths. A package's own file says what the package is, and has no logic."""
    paths = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return {path.relative_to(ROOT).as_posix() for path in paths if path.name != "__init__.py"}


def unit_tests() -> set[str]:
    """All unit tests of modules, by their paths below tests/unit."""
    paths = (path.relative_to(UNIT) for path in UNIT.rglob("test_*.py"))
    return {path.as_posix() for path in paths if path.parts[0] != APART}


def module_of(test: str, existing: set[str]) -> str | None:
    """The module that a unit test belongs to: the one with the longest name that its own begins with."""
    path = PurePosixPath(test)
    folder = path.parent if path.parts[0] == "loadtest" else "couponapp" / path.parent
    words = path.stem.removeprefix("test_").split("_")
    names = (f"{folder / '_'.join(words[:count])}.py" for count in range(len(words), 0, -1))
    return next((name for name in names if name in existing), None)


def place_of(module: str, places: Iterable[str]) -> str | None:
    """The entry of a module: its own, or that of its folder."""
    return next((place for place in (module, str(PurePosixPath(module).parent)) if place in places), None)


def wrong(existing: set[str], tests: set[str], elsewhere: Mapping[str, str]) -> list[str]:
    """What breaks the rule, one line each."""
    belongs = {test: module_of(test, existing) for test in tests}
    lines = [f"{test} mirrors no module" for test, module in belongs.items() if module is None]
    untested = existing - set(belongs.values())
    places = {module: place_of(module, elsewhere) for module in untested}
    lines += [f"{module} has no unit test" for module, place in places.items() if place is None]
    lines += [f"{place} is listed, and nothing there needs it" for place in set(elsewhere) - set(places.values())]
    return sorted(lines)


def test_every_unit_test_mirrors_a_module_and_every_module_is_tested_there_or_where_the_list_says() -> None:
    assert wrong(modules(), unit_tests(), ELSEWHERE) == []


def test_every_test_that_the_list_names_exists() -> None:
    named = {name for names in ELSEWHERE.values() for name in names.split()}
    assert [name for name in sorted(named) if not (ROOT / "tests" / name).is_file()] == []


def test_a_module_or_a_test_without_its_counterpart_and_a_needless_entry_are_found() -> None:
    existing = {"couponapp/a/b.py", "couponapp/a/b_c.py", "loadtest/x/y.py"}
    whole = {"a/test_b_c.py", "a/test_b_threads.py", "loadtest/x/test_y.py"}
    assert wrong(existing, whole, {}) == []
    assert wrong(existing, whole - {"a/test_b_threads.py"}, {}) == ["couponapp/a/b.py has no unit test"]
    assert wrong(existing, whole | {"a/test_d.py"}, {}) == ["a/test_d.py mirrors no module"]
    assert wrong(existing, whole | {"x/test_y.py"}, {}) == ["x/test_y.py mirrors no module"]
    fewer = whole - {"loadtest/x/test_y.py"}
    assert wrong(existing, fewer, {"loadtest/x": ""}) == wrong(existing, fewer, {"loadtest/x/y.py": ""}) == []
    assert wrong(existing, whole, {"loadtest/x": ""}) == ["loadtest/x is listed, and nothing there needs it"]
