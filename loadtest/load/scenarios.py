"""The events that `make load` knows by name: how the crowd comes, and what is promised to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

ISSUE, ISSUE_AGAIN, BOT = "issue", "issue again", "bot"
LOOK_UP, LIST, MINE, PAGE, MY_PAGE = "look-up", "list", "my coupons", "page", "my page"
STEADY, STEPS, SURGE = "steady", "steps", "surge"

# The incident's event: 10,000 requests a minute, 1,000 pieces, 50,000 users.
INCIDENT_PER_S = 10_000 / 60
USUAL_MIX = MappingProxyType({ISSUE: 70, LOOK_UP: 20, MINE: 10})


@dataclass(frozen=True)
class Promises:
    """What a run must keep; what is None or False is shown and not judged.

    Attributes:
        no_5xx: no answer is a 5xx; otherwise a 503 may be, and nothing else.
        issue_p99_ms: the 99th percentile of all attempts to issue, in milliseconds.
        refused_p99_ms: likewise of refusals: SOLD_OUT, 429, 503.
        sells_out: every piece is issued.
        notified_s: every holder is notified so many seconds after the last answer.
        goodput_of_peak: goodput in the last step, as a share of the best step's.
        memory_growth: by how much the web processes may grow from the middle of the run to its end.
        spares_others: no user but a bot gets a 429.
        past_limits: how many attempts of one bot are let past the rate limits at most.
        opens_on_time: nothing is issued before the opening, and nothing is paid for an early click.
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
        seconds: for how long.
        stock: pieces.
        users: different users, at random.
        mix: how often each kind of request is asked for, as weights.
        shape: `steady`, at random moments; `steps`, rising to the rate by way of SHARES;
            `surge`, most of them around the opening.
        opens_at_s: when the coupon opens, in seconds from the start; before it where negative.
        bots: tokens that hammer, besides the users.
        bots_per_s: attempts of all bots together.
        patience_s: after how long a user closes the connection and asks again.
        tries: how often a user asks at most.
        environ: settings of the service that differ from its defaults.
        promises: what is judged.
    """

    name: str
    tells: str
    rate_per_s: float
    seconds: int
    stock: int
    users: int
    promises: Promises
    mix: Mapping[str, int] = field(default_factory=lambda: dict(USUAL_MIX))
    shape: str = STEADY
    opens_at_s: float = -60.0
    bots: int = 0
    bots_per_s: float = 0.0
    patience_s: float | None = None
    tries: int = 1
    environ: Mapping[str, str] = field(default_factory=dict)


# Of the rate of `steps`, and of the length: three short steps show the peak, then the full load holds.
SHARES = ((0.2, 1 / 6), (0.4, 1 / 6), (0.7, 1 / 6), (1.0, 1 / 2))

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "incident",
            "The event of the incident: 10,000 requests a minute for 1,000 pieces.",
            rate_per_s=INCIDENT_PER_S,
            seconds=60,
            stock=1_000,
            users=50_000,
            promises=Promises(issue_p99_ms=150.0, sells_out=True),
        ),
        Scenario(
            "threefold",
            "Three times the incident's traffic, with mixed reads.",
            rate_per_s=3 * INCIDENT_PER_S,
            seconds=60,
            stock=1_000,
            users=50_000,
            promises=Promises(issue_p99_ms=150.0, sells_out=True),
        ),
        Scenario(
            "tenfold",
            "Ten times the incident's traffic, reached in steps, with pieces for everybody.",
            rate_per_s=10 * INCIDENT_PER_S,
            seconds=60,
            stock=100_000,
            users=100_000,
            shape=STEPS,
            # So that the machine is the limit, and not the limit of three times the incident.
            environ={"COUPON_LIMIT_GLOBAL": "1000000/minute"},
            promises=Promises(
                no_5xx=False, refused_p99_ms=100.0, notified_s=None, goodput_of_peak=0.9, memory_growth=0.1
            ),
        ),
        Scenario(
            "opening",
            "Everybody waits for the second of the opening, clicks early and then all at once.",
            rate_per_s=200.0,
            seconds=30,
            stock=1_000,
            users=20_000,
            mix={ISSUE: 80, LOOK_UP: 15, PAGE: 5},
            shape=SURGE,
            opens_at_s=8.0,
            promises=Promises(no_5xx=False, issue_p99_ms=1_500.0, sells_out=True, opens_on_time=True),
        ),
        Scenario(
            "sold-out",
            "The herd after the last piece.",
            rate_per_s=400.0,
            seconds=30,
            stock=100,
            users=50_000,
            mix={ISSUE: 95, LOOK_UP: 5},
            promises=Promises(refused_p99_ms=100.0, sells_out=True),
        ),
        Scenario(
            "retry-storm",
            "Impatient users: whoever is refused by a 429 or 503, or waits for a second, asks again at once.",
            rate_per_s=200.0,
            seconds=30,
            stock=50_000,
            users=50_000,
            mix={ISSUE: 90, LOOK_UP: 10},
            patience_s=1.0,
            tries=5,
            # Each process lets fewer in than come, so that there is a storm on every machine.
            environ={"COUPON_LIMIT_PROCESS": "30/second"},
            promises=Promises(no_5xx=False, refused_p99_ms=100.0, goodput_of_peak=0.9),
        ),
        Scenario(
            "bot",
            "A hundred tokens hammer among ordinary users.",
            rate_per_s=150.0,
            seconds=30,
            stock=20_000,
            users=50_000,
            bots=100,
            bots_per_s=200.0,
            # The service's default, told because of what is promised: half a minute touches two of its windows.
            environ={"COUPON_LIMIT_USER": "5/minute"},
            promises=Promises(issue_p99_ms=150.0, refused_p99_ms=100.0, spares_others=True, past_limits=10),
        ),
        Scenario(
            "mixed",
            "People who look around: attempts, look-ups, lists, «my coupons», and the pages.",
            rate_per_s=150.0,
            seconds=60,
            stock=1_000,
            users=50_000,
            mix={ISSUE: 30, LOOK_UP: 25, LIST: 10, MINE: 15, PAGE: 15, MY_PAGE: 5},
            promises=Promises(issue_p99_ms=150.0, sells_out=True),
        ),
    )
}
DEFAULT = "threefold"
