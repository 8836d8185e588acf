"""Plans a scenario's requests ahead: when, of which kind, by whom. The same seed gives the same plan."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from loadtest.driver.generator import GAVE_UP, Again, Arrival, Result
from loadtest.driver.http_client import HOST, request_bytes
from loadtest.load.scenarios import BOT, ISSUE, ISSUE_AGAIN, MY_PAGE, REQUESTS, SHARES, STEPS, SURGE, Scenario

# Around the opening: the share of early look-ups and clicks, of the rush in the seconds after it; then the rest.
_BEFORE, _RUSH = 0.15, 0.6
_RUSH_MEAN_S = 1.0
# The rush begins a little early, because users' clocks differ.
_EARLY_S = 0.3
_PAUSE_S = (0.05, 0.5)


@dataclass(frozen=True, slots=True)
class Click:
    """One planned request before it is put into bytes.

    Attributes:
        at_s: planned moment, in seconds from the start.
        kind: of request, as in `loadtest.load.scenarios`.
        user: the user.
    """

    at_s: float
    kind: str
    user: str


@dataclass(frozen=True)
class Step:
    """A part of the run: from and to, in seconds, and the planned requests per second."""

    from_s: float
    to_s: float
    rate_per_s: float


def steps(scenario: Scenario) -> list[Step]:
    """Return the parts of a run; one where the rate is constant."""
    found, from_s = [], 0.0
    for share, of_length in SHARES if scenario.shape == STEPS else ((1.0, 1.0),):
        to_s = from_s + of_length * scenario.seconds
        found.append(Step(from_s, to_s, share * scenario.rate_per_s))
        from_s = to_s
    return found


def clicks(scenario: Scenario, seed: int) -> list[Click]:
    """Return all requests of a scenario, ordered by time.

    Args:
        scenario: the event.
        seed: of all random choices.
    """
    chance = random.Random(seed)
    kinds, weights = list(scenario.mix), list(scenario.mix.values())
    crowd = [
        Click(at_s, kind, f"user-{chance.randrange(scenario.users)}")
        for at_s in _moments(scenario, chance)
        for kind in chance.choices(kinds, weights)
    ]
    for _ in range(int(scenario.bots_per_s * scenario.seconds) if scenario.bots else 0):
        crowd.append(Click(chance.uniform(0, scenario.seconds), BOT, f"bot-{chance.randrange(scenario.bots)}"))
    return sorted(crowd, key=lambda click: click.at_s)


def _moments(scenario: Scenario, chance: random.Random) -> Iterator[float]:
    """Yield random moments, as of independent users: a Poisson process with a given number of arrivals."""
    if scenario.shape == SURGE:
        for _ in range(round(scenario.rate_per_s * scenario.seconds)):
            yield _around_the_opening(scenario, chance)
        return
    for step in steps(scenario):
        for _ in range(round(step.rate_per_s * (step.to_s - step.from_s))):
            yield chance.uniform(step.from_s, step.to_s)


def _around_the_opening(scenario: Scenario, chance: random.Random) -> float:
    part = chance.random()
    if part < _BEFORE:  # more and more as the opening comes near
        return scenario.opens_at_s * math.sqrt(chance.random())
    if part < _BEFORE + _RUSH:
        at_s = scenario.opens_at_s - _EARLY_S + chance.expovariate(1 / _RUSH_MEAN_S)
        return min(max(0.0, at_s), float(scenario.seconds))
    return chance.uniform(scenario.opens_at_s, scenario.seconds)


@dataclass(frozen=True)
class Site:
    """Where the requests go.

    Attributes:
        port: of the web server.
        coupon_id: of the event.
        host: of the web server.
        cookie: name of the cookie in which the pages look for the token.
    """

    port: int
    coupon_id: int
    host: str = HOST
    cookie: str = "coupon_token"


def arrival(click: Click, site: Site, token: str, scenario: Scenario) -> Arrival:
    """Put a click into bytes.

    Args:
        click: the planned request.
        site: where it goes.
        token: the user's.
        scenario: says how patient users are.
    """
    impatient = scenario.tries > 1 and click.kind == ISSUE
    key = f"key-of-{click.user}" if impatient else ""
    method, path, has_token = REQUESTS[click.kind]
    request = request_bytes(
        method,
        path.format(site.coupon_id),
        token if has_token else "",
        key=key,
        host=site.host,
        cookie=f"{site.cookie}={token}" if click.kind == MY_PAGE else "",
    )
    patience_s = scenario.patience_s if impatient else None
    return Arrival(click.at_s, click.kind, request, click.user, patience_s=patience_s, key=key)


def impatience(scenario: Scenario, seed: int) -> Again:
    """Return what users do after a result: where the scenario has more than one try, they soon try again.

    Args:
        scenario: says how often.
        seed: of the random pauses.
    """
    chance = random.Random(seed)

    def again(arrival: Arrival, result: Result) -> Arrival | None:
        refused = result.status in (429, 503) or result.code in ("NO_ANSWER", GAVE_UP)
        if arrival.kind not in (ISSUE, ISSUE_AGAIN) or not refused or arrival.attempt >= scenario.tries:
            return None
        at_s = result.answered_s + chance.uniform(*_PAUSE_S)
        return replace(arrival, at_s=at_s, kind=ISSUE_AGAIN, attempt=arrival.attempt + 1)

    return again
