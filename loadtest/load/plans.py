"""Who asks for what, and when: a scenario's crowd, planned ahead. The same seed gives the same plan."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from loadtest.driver.generator import GAVE_UP, Again, Arrival, Result
from loadtest.driver.http_client import HOST, request_bytes
from loadtest.load.scenarios import BOT, ISSUE, ISSUE_AGAIN, SHARES, STEPS, SURGE, Scenario

# Around the opening: who looks and clicks before, the rush in the seconds after it, and the rest.
_BEFORE, _RUSH = 0.15, 0.6
_RUSH_MEAN_S = 1.0
# Clocks differ and fingers twitch: the rush begins a little early.
_TWITCH_S = 0.3
_PAUSE_S = (0.05, 0.5)


@dataclass(frozen=True, slots=True)
class Click:
    """One planned request before it is put into bytes.

    Attributes:
        at_s: when, in seconds from the start.
        kind: of request, as in `loadtest.load.scenarios`.
        user: who asks.
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
    """The parts of a run; one where the rate is the same throughout."""
    found, from_s = [], 0.0
    for share, of_length in SHARES if scenario.shape == STEPS else ((1.0, 1.0),):
        to_s = from_s + of_length * scenario.seconds
        found.append(Step(from_s, to_s, share * scenario.rate_per_s))
        from_s = to_s
    return found


def clicks(scenario: Scenario, seed: int) -> list[Click]:
    """The whole crowd, in the order of time.

    Args:
        scenario: the event.
        seed: of every choice.
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
    """Random moments, as independent users have: a Poisson process, given its number."""
    if scenario.shape == SURGE:
        for _ in range(round(scenario.rate_per_s * scenario.seconds)):
            yield _around_the_opening(scenario, chance)
        return
    for step in steps(scenario):
        for _ in range(round(step.rate_per_s * (step.to_s - step.from_s))):
            yield chance.uniform(step.from_s, step.to_s)


def _around_the_opening(scenario: Scenario, chance: random.Random) -> float:
    part = chance.random()
    if part < _BEFORE:  # more and more of them as the moment comes near
        return scenario.opens_at_s * math.sqrt(chance.random())
    if part < _BEFORE + _RUSH:
        at_s = scenario.opens_at_s - _TWITCH_S + chance.expovariate(1 / _RUSH_MEAN_S)
        return min(max(0.0, at_s), float(scenario.seconds))
    return chance.uniform(scenario.opens_at_s, scenario.seconds)


@dataclass(frozen=True)
class Site:
    """Where the requests go.

    Attributes:
        port: of the web server.
        coupon_id: of the event.
        host: of the web server.
        cookie: the name of the cookie in which the pages find the token.
    """

    port: int
    coupon_id: int
    host: str = HOST
    cookie: str = "coupon_token"


def arrival(click: Click, site: Site, token: str, scenario: Scenario) -> Arrival:
    """A click as it goes over the wire.

    Args:
        click: what was planned.
        site: where it goes.
        token: the user's.
        scenario: says how patient users are.
    """
    impatient = scenario.tries > 1 and click.kind == ISSUE
    key = f"key-of-{click.user}" if impatient else ""
    return Arrival(
        click.at_s,
        click.kind,
        _request(click, site, token, key=key),
        click.user,
        patience_s=scenario.patience_s if impatient else None,
        key=key,
    )


def _request(click: Click, site: Site, token: str, *, key: str) -> bytes:
    coupon = f"/api/v1/coupons/{site.coupon_id}"
    match click.kind:
        case "issue" | "bot":
            return request_bytes("POST", f"{coupon}/issue", token, key=key, host=site.host)
        case "look-up":
            return request_bytes("GET", coupon, host=site.host)
        case "list":
            return request_bytes("GET", "/api/v1/coupons", host=site.host)
        case "my coupons":
            return request_bytes("GET", "/api/v1/me/coupons", token, host=site.host)
        case "page":
            return request_bytes("GET", f"/coupons/{site.coupon_id}", host=site.host)
        case "my page":
            return request_bytes("GET", "/my-coupons", host=site.host, cookie=f"{site.cookie}={token}")
        case unknown:
            raise ValueError(f"no request is known for {unknown}")


def impatience(scenario: Scenario, seed: int) -> Again:
    """What users do about an answer: where the scenario has more than one try, ask again soon.

    Args:
        scenario: says how often.
        seed: of the pauses.
    """
    chance = random.Random(seed)

    def again(arrival: Arrival, result: Result) -> Arrival | None:
        refused = result.status in (429, 503) or result.code in ("NO_ANSWER", GAVE_UP)
        if arrival.kind not in (ISSUE, ISSUE_AGAIN) or not refused or arrival.attempt >= scenario.tries:
            return None
        at_s = result.answered_s + chance.uniform(*_PAUSE_S)
        return replace(arrival, at_s=at_s, kind=ISSUE_AGAIN, attempt=arrival.attempt + 1)

    return again
