"""Holds a run against what its scenario promises. Each check says what was promised and what was seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean

from loadtest.driver.generator import GAVE_UP, Result
from loadtest.driver.usage import Sample
from loadtest.load.answered import ISSUE, Answered
from loadtest.load.figures import ATTEMPTS, NO_ANSWER, REFUSALS, goodput_per_s, percentiles_ms
from loadtest.load.history import check
from loadtest.load.ledger import Ledger
from loadtest.load.plans import Step, steps
from loadtest.load.scenarios import BOT, STEPS, Scenario

_MB = 1_000_000
# Below this, growth is the allocator's and not the service's.
_NOISE_BYTES = 10 * _MB


@dataclass(frozen=True)
class Check:
    """One promise and what became of it."""

    name: str
    promised: str
    seen: str
    kept: bool


def judge(
    scenario: Scenario, results: Sequence[Result], ledger: Ledger | None, samples: Sequence[Sample]
) -> list[Check]:
    """Every promise of the scenario, kept or broken.

    Args:
        scenario: with its promises.
        results: all answers.
        ledger: what the database holds; None where it cannot be asked.
        samples: of processors and memory; none where the processes cannot be seen.
    """
    checks = [_errors(scenario, results)]
    checks += _times(scenario, results)
    checks += _goodput(scenario, results)
    checks += _memory(scenario, samples)
    checks += _limits(scenario, results)
    checks += _answers_alone(scenario, results)
    if ledger is not None:
        checks += _books(scenario, results, ledger)
        checks.append(_explained(results, ledger))
    return checks


def _errors(scenario: Scenario, results: Sequence[Result]) -> Check:
    allowed = set() if scenario.promises.no_5xx else {"SERVICE_UNAVAILABLE"}
    allowed |= {GAVE_UP} if scenario.patience_s is not None else set()
    errors = Counter(r.code for r in results if (r.status >= 500 or r.code in NO_ANSWER) and r.code not in allowed)
    promised = "no 5xx, every request answered" if scenario.promises.no_5xx else "no 5xx but a short 503"
    told = ", ".join(f"{number} {code}" for code, number in errors.most_common())
    return Check("errors", promised, told or "none", not errors)


def _times(scenario: Scenario, results: Sequence[Result]) -> Iterator[Check]:
    promises = scenario.promises
    ordinary = [result for result in results if result.kind in ATTEMPTS and result.kind != BOT]
    refused = [result for result in results if result.kind in ATTEMPTS and result.code in REFUSALS]
    for name, bound_ms, those in (
        ("attempts in time", promises.issue_p99_ms, ordinary),
        ("refusals in time", promises.refused_p99_ms, refused),
    ):
        if bound_ms is not None:
            p99_ms = percentiles_ms([result.latency_s for result in those])[99.0]
            seen = f"p99 {p99_ms:.0f} ms of {len(those)}"
            yield Check(name, f"p99 at most {bound_ms:.0f} ms", seen, p99_ms <= bound_ms)


def goodput_steps(scenario: Scenario) -> list[Step]:
    """The parts of a run whose goodput is compared: its steps, or thirds where it has none."""
    if scenario.shape == STEPS:
        return steps(scenario)
    third_s = scenario.seconds / 3
    return [Step(part * third_s, (part + 1) * third_s, scenario.rate_per_s) for part in range(3)]


def _goodput(scenario: Scenario, results: Sequence[Result]) -> Iterator[Check]:
    if (share := scenario.promises.goodput_of_peak) is None:
        return
    rates = [goodput_per_s(results, step) for step in goodput_steps(scenario)]
    seen = f"{rates[-1]:.0f}/s at the end, {max(rates):.0f}/s at the peak"
    promised = f"at least {share:g} of the peak to the end"
    yield Check("goodput", promised, seen, rates[-1] > 0 and rates[-1] >= share * max(rates))


def _memory(scenario: Scenario, samples: Sequence[Sample]) -> Iterator[Check]:
    web = [sample.roles["web"].rss_bytes for sample in samples if "web" in sample.roles]
    if (growth := scenario.promises.memory_growth) is None or not samples:
        return
    third = max(1, len(web) // 3)
    before, after = (mean(part) if part else 0.0 for part in (web[third : 2 * third], web[-third:]))
    seen = f"{before / _MB:.0f} MB in the middle of the run, {after / _MB:.0f} MB at its end"
    kept = bool(before) and after - before <= max(_NOISE_BYTES, growth * before)
    yield Check("memory is flat", f"web processes grow by at most {100 * growth:.0f} %", seen, kept)


def _limits(scenario: Scenario, results: Sequence[Result]) -> Iterator[Check]:
    promises = scenario.promises
    if promises.past_limits is not None:
        passed = Counter(result.who for result in results if result.kind == BOT and result.status in (201, 409))
        most = max(passed.values(), default=0)
        promised = f"at most {promises.past_limits} attempts of each pass"
        yield Check("bots are held back", promised, f"{most} of one did", most <= promises.past_limits)
    if not (promises.spares_others or promises.opens_on_time):
        return
    limited = sum(1 for result in results if result.status == 429 and result.kind != BOT)
    name = "others are spared" if promises.spares_others else "early clicks cost nothing"
    yield Check(name, "no ordinary user gets a 429", f"{limited} did", not limited)


def _answers_alone(scenario: Scenario, results: Sequence[Result]) -> Iterator[Check]:
    """What the answers must not say, whatever the database holds."""
    told: dict[str, set[str]] = {}
    for result in results:
        if result.kind in ATTEMPTS and result.issuance:
            told.setdefault(result.who, set()).add(result.issuance)
    several = sum(1 for codes in told.values() if len(codes) > 1)
    yield Check("one per user", "nobody is shown two codes", f"{several} were", not several)
    codes = [code for of_user in told.values() for code in of_user]
    shared = len(codes) - len(set(codes))
    yield Check("one user per code", "no code is shown to two users", f"{shared} were", not shared)
    number = len(set(codes))
    yield Check("never too many", f"at most {scenario.stock} codes", f"{number}", number <= scenario.stock)


def _books(scenario: Scenario, results: Sequence[Result], ledger: Ledger) -> Iterator[Check]:
    promises = scenario.promises
    yield Check("verify", "clean", "; ".join(ledger.violations) or "clean", not ledger.violations)
    told = {(r.who, r.issuance) for r in results if r.kind in ATTEMPTS and r.issuance}
    lost = sum(1 for who, code in told if ledger.owners.get(who) != code)
    yield Check("what was told is recorded", "every code that a user was shown", f"{lost} are missing", not lost)
    sold_out = sum(1 for result in results if result.code == "SOLD_OUT")
    seen = f"{ledger.issued} of {ledger.total} issued, {sold_out} told SOLD_OUT"
    least = min(ledger.total, len({r.who for r in results if r.kind in ATTEMPTS})) if promises.sells_out else 0
    kept = least <= ledger.issued <= ledger.total and (ledger.issued == ledger.total or not sold_out)
    promised = f"exactly {least} issued" if least else f"at most {ledger.total} issued, SOLD_OUT only when all are"
    yield Check("exactly the stock", promised, seen, kept)
    if promises.opens_on_time:
        yield Check("the opening", "nothing issued before it", f"{ledger.early} were", not ledger.early)
    if promises.notified_s is not None:
        seen = f"{ledger.waiting} wait, the slowest took {ledger.slowest_notification_s:.1f} s"
        kept = not ledger.waiting and ledger.slowest_notification_s <= promises.notified_s
        yield Check("notified", f"every holder within {promises.notified_s:.0f} s", seen, kept)


def _explained(results: Sequence[Result], ledger: Ledger) -> Check:
    """Some order of events explains every attempt; see `loadtest.load.history`."""
    answers = [
        Answered(ISSUE, r.who, 0, r.sent_s, max(r.sent_s, r.answered_s), r.code, r.issuance or None, r.key or None)
        for r in results
        # When the coupon opens is on the database's clock: `ledger.early` has looked at that. What was
        # not sent has done nothing.
        if r.kind in ATTEMPTS and r.code not in ("NOT_OPEN", "NOT_SENT")
    ]
    found = check(answers, ledger.owners, ledger.total)
    seen = "; ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
    return Check("history", "some order of events explains every answer", seen or "one does", not found)
