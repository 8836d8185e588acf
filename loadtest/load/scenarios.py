"""The events of `make load`: how the crowd comes, and what is promised to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

ISSUE, ISSUE_AGAIN, BOT = "issue", "issue again", "bot"
LOOK_UP, LIST, MINE, PAGE, MY_PAGE = "look-up", "list", "my coupons", "page", "my page"
# By kind: method, path with the coupon's id, and whether the request has an Authorization header.
REQUESTS = {
    ISSUE: ("POST", "/api/v1/coupons/{}/issue", True),
    BOT: ("POST", "/api/v1/coupons/{}/issue", True),
    LOOK_UP: ("GET", "/api/v1/coupons/{}", False),
    LIST: ("GET", "/api/v1/coupons", False),
    MINE: ("GET", "/api/v1/me/coupons", True),
    PAGE: ("GET", "/coupons/{}", False),
    MY_PAGE: ("GET", "/my-coupons", False),
}
STEADY, STEPS, SURGE = "steady", "steps", "surge"

# The incident's event, which the defaults of a scenario describe too: 10,000 requests a minute.
INCIDENT_PER_S = 10_000 / 60
USUAL_MIX = MappingProxyType({ISSUE: 70, LOOK_UP: 20, MINE: 10})


@dataclass(frozen=True)
class Promises:
    """What a run must keep; what is None or False is shown and not judged.

    Attributes:
        no_5xx: no response is a 5xx; otherwise only 503 is allowed.
        issue_p99_ms: 99th percentile of all attempts to issue, in milliseconds.
        refused_p99_ms: 99th percentile of refusals (SOLD_OUT, 429, 503), in milliseconds.
        sells_out: every piece is issued.
        notified_s: every holder is notified within this after issuing, in seconds.
        goodput_of_peak: goodput in the last step, as a share of the best step's.
        memory_growth: how much the web processes may grow from the middle of the run to its end, as a share.
        spares_others: only bots get a 429.
        past_limits: maximum number of attempts of one bot that pass the rate limits.
        opens_on_time: nothing is issued before the opening, and an early click uses up no limit.
    """

    no_5xx: bool = True
    issue_p99_ms: float | None = None
    refused_p99_ms: float | None = None
    sells_out: bool = False
    notified_s: float | None = 60.0
    goodput_of_peak: float | None = None
    memory_growth: float | None = None
    spares_others: bool = False
    past_limits: int | None = None
    opens_on_time: bool = False


@dataclass(frozen=True)
class Scenario:
    """One kind of event.

    Attributes:
        name: on the command line.
        tells: one sentence for the report.
        rate_per_s: planned requests per second, on average over the run.
        seconds: length of the run.
        stock: pieces.
        users: number of different users, chosen at random.
        mix: kinds of requests and their weights.
        shape: `steady`, at random moments; `steps`, rising to the rate by SHARES; `surge`, most of them
            around the opening.
        opens_at_s: when the coupon opens, in seconds from the start; before it where negative.
        bots: number of tokens that send attempts without a pause, in addition to the users.
        bots_per_s: attempts per second of all bots together.
        patience_s: after how long a user closes the connection and tries again, in seconds.
        tries: how often a user tries at most.
        environ: settings of the service that differ from its defaults.
        promises: what is judged.
    """

    name: str
    tells: str
    rate_per_s: float
    promises: Promises
    seconds: int = 60
    stock: int = 1_000
    users: int = 50_000
    mix: Mapping[str, int] = field(default_factory=lambda: dict(USUAL_MIX))
    shape: str = STEADY
    opens_at_s: float = -60.0
    bots: int = 0
    bots_per_s: float = 0.0
    patience_s: float | None = None
    tries: int = 1
    environ: Mapping[str, str] = field(default_factory=dict)


# Shares of the rate and of the length of `steps`: three short steps show the peak, then the full load stays.
SHARES = ((0.2, 1 / 6), (0.4, 1 / 6), (0.7, 1 / 6), (1.0, 1 / 2))

SELLS_OUT = Promises(issue_p99_ms=150.0, sells_out=True)

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "incident",
            "The event of the incident: 10,000 requests a minute for 1,000 pieces.",
            rate_per_s=INCIDENT_PER_S,
            promises=SELLS_OUT,
        ),
        Scenario(
            "threefold",
            "Three times the incident's traffic, with mixed reads.",
            rate_per_s=3 * INCIDENT_PER_S,
            promises=SELLS_OUT,
        ),
        Scenario(
            "tenfold",
            "Ten times the incident's traffic, reached in steps, with pieces for all users.",
            rate_per_s=10 * INCIDENT_PER_S,
            stock=100_000,
            users=100_000,
            shape=STEPS,
            # So that the machine is the limit, and not the default of three times the incident.
            environ={"COUPON_LIMIT_GLOBAL": "1000000/minute"},
            promises=Promises(
                no_5xx=False, refused_p99_ms=100.0, notified_s=None, goodput_of_peak=0.9, memory_growth=0.1
            ),
        ),
        Scenario(
            "opening",
            "Users wait for the opening, some click early, and then most click at once.",
            rate_per_s=200.0,
            seconds=30,
            users=20_000,
            mix={ISSUE: 80, LOOK_UP: 15, PAGE: 5},
            shape=SURGE,
            opens_at_s=8.0,
            promises=Promises(no_5xx=False, issue_p99_ms=1_500.0, sells_out=True, opens_on_time=True),
        ),
        Scenario(
            "sold-out",
            "Many users continue to try after the last piece is gone.",
            rate_per_s=400.0,
            seconds=30,
            stock=100,
            mix={ISSUE: 95, LOOK_UP: 5},
            promises=Promises(refused_p99_ms=100.0, sells_out=True),
        ),
        Scenario(
            "retry-storm",
            "Impatient users: after a 429 or 503, or a second without a response, they try again at once.",
            rate_per_s=200.0,
            seconds=30,
            stock=50_000,
            mix={ISSUE: 90, LOOK_UP: 10},
            patience_s=1.0,
            tries=5,
            # Each process admits fewer attempts than arrive, so that there is a storm on every machine.
            environ={"COUPON_LIMIT_PROCESS": "30/second"},
            promises=Promises(no_5xx=False, refused_p99_ms=100.0, goodput_of_peak=0.9),
        ),
        Scenario(
            "bot",
            "A hundred bots send attempts without a pause among ordinary users.",
            rate_per_s=150.0,
            seconds=30,
            stock=20_000,
            bots=100,
            bots_per_s=200.0,
            # The service's default, set because of the promise: half a minute overlaps two of its windows.
            environ={"COUPON_LIMIT_USER": "5/minute"},
            promises=Promises(issue_p99_ms=150.0, refused_p99_ms=100.0, spares_others=True, past_limits=10),
        ),
        Scenario(
            "mixed",
            "Users who look around: attempts, look-ups, lists, «my coupons», and the pages.",
            rate_per_s=150.0,
            mix={ISSUE: 30, LOOK_UP: 25, LIST: 10, MINE: 15, PAGE: 15, MY_PAGE: 5},
            promises=SELLS_OUT,
        ),
    )
}
DEFAULT = "threefold"
