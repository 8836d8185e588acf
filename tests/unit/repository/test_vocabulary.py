"""One word for one thing: names that were replaced by the field's terms do not come back.

Each row names the term that is used today, the old names, and the packages in which they are not used. An
old name is looked for among the identifiers of the code, not in texts, comments or file names. Some old
names are good words elsewhere (a plan of a load run, the parts of an address); they are banned only
where they once meant something else.
"""

from __future__ import annotations

import functools
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.servers import ROOT

ALL = ("couponapp", "loadtest")
COUPONAPP = ("couponapp",)
LOADTEST = ("loadtest",)
ISSUING = ("couponapp/issuing", "couponapp/web", "couponapp/services.py")
NOTIFYING = ("couponapp/notifying", "couponapp/worker")
BATCHER = ("couponapp/guards", *ISSUING, "loadtest/bench")
LIMITS = ("couponapp/guards", "couponapp/web", "couponapp/services.py", "loadtest/bench")

# (today's terms, old names, where they are banned)
TABLE: list[tuple[str, str, tuple[str, ...]]] = [
    ("IssueRequest, IssueResult", "Claim Attempt", ALL),
    ("ClaimedDelivery, ExpectedClaims", "Claim Claims", ALL),
    ("Batcher", "Bulkhead bulkhead _Visit", ALL),
    ("max_concurrent, batch_key, unique_key", "places same only_once", BATCHER),
    ("max_batch_size, min_remaining_s", "max_group reserve_s", BATCHER),
    ("OverloadGuard, QueueFull", "Backlog Shed", ALL),
    ("overload guard", "backlog", ("couponapp/guards", "couponapp/issuing", "couponapp/web", "couponapp/services.py")),
    ("rate-limit status, hit, global", "Standing Asked asked together", LIMITS),
    ("start and wait for a shared fetch", "_take_off _land", ALL),
    ("CachingVerifier, key_version", "Remembering generation", COUPONAPP),
    ("services", "Parts parts whole", ("couponapp/web", "couponapp/issuing", "loadtest/bench/baselines")),
    ("retry policy, poison, crash suspect", "fate of_poison suspect", ALL),
    ("throttle, reschedule, release lease", "pace put_off put_back", ALL),
    ("fan out, fanned_out_at", "plan planned_at", NOTIFYING),
    ("Notification", "Notice", ALL),
    ("ChannelSender", "Delivery", NOTIFYING),
    ("early result, evaluated, outbox rows, recheck", "known seen told LOOK", ISSUING),
    ("affects_whole_pool", "spoils_neighbours", ALL),
    ("verify_session_settings, synchronous_commit", "examine flushed", COUPONAPP),
    ("is_database_failure", "speaks_against_postgresql", ALL),
    ("mark_served", "is_served", ALL),
    ("ledger, workers, client, host load", "books fleet wire yardstick", LOADTEST),
    ("webhook receiver, background", "shop beside", LOADTEST),
]


def identifiers(source: str) -> set[str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.string for token in tokens if token.type == tokenize.NAME}


@functools.cache
def identifiers_of(path: Path) -> set[str]:
    return identifiers(path.read_text(encoding="utf-8")) if path.is_file() else set()


def sources(places: tuple[str, ...]) -> Iterator[Path]:
    for place in places:
        path = ROOT / place
        yield from [path] if path.suffix else sorted(path.rglob("*.py"))


def found(old: str, places: tuple[str, ...]) -> list[str]:
    """Each file that uses one of these names, and which."""
    uses = ((path, set(old.split()) & identifiers_of(path)) for path in sources(places))
    return [f"{path.relative_to(ROOT)}: {' '.join(sorted(names))}" for path, names in uses if names]


@pytest.mark.parametrize(("today", "old", "places"), TABLE, ids=[f"{old} -> {today}" for today, old, _ in TABLE])
def test_old_names_are_not_used(today: str, old: str, places: tuple[str, ...]) -> None:
    uses = found(old, places)
    assert not uses, f"say {today} instead: " + "; ".join(uses)


def test_an_old_name_would_be_found_as_an_identifier_and_only_as_one() -> None:
    source = (
        "# a Bulkhead\ndef issue(bulkhead: int, *, note: str = 'Bulkhead') -> int:\n    return bulkhead + _Visit.x\n"
    )
    assert {"bulkhead", "_Visit", "x"} <= identifiers(source)
    assert "Bulkhead" not in identifiers(source)


def test_every_place_is_searched() -> None:
    places = {place for _, _, row in TABLE for place in row if not place.endswith(".py")}
    for place in places:
        assert list(sources((place,))), place
    # A name that is used today is found in its place, so a banned one would be.
    assert found("CachingVerifier", COUPONAPP)
    assert found("Batcher", BATCHER)
